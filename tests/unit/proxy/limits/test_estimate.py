"""The estimate a request reserves (contract 3.1)."""

import json

import pytest

from proxy.limits.estimate import FIRST_MEAN, CompletionMeans, expected
from schemas.usage import Tokens


def reserved_tokens(body: bytes, n: int | None, max_tokens: int | None, completion_mean: int) -> int:
    return expected(body, n, max_tokens, completion_mean).reserved


def test_the_prompt_is_its_bytes_by_four_rounded_up() -> None:
    assert reserved_tokens(b"x" * 401, None, 7, 512) == 101 + 7


def test_choices_multiply_the_completion_and_the_mean_stands_in_for_max_tokens() -> None:
    assert reserved_tokens(b"", 3, 100, 512) == 300
    assert reserved_tokens(b"", 3, None, 512) == 1536


def test_what_is_likely_is_the_mean_or_the_clients_lower_bound() -> None:
    assert expected(b"x" * 40, 2, None, 30).tokens == Tokens(input_tokens=10, output_tokens=60)
    assert expected(b"x" * 40, 2, 1000, 30).tokens == Tokens(input_tokens=10, output_tokens=60)
    assert expected(b"x" * 40, 2, 5, 30).tokens == Tokens(input_tokens=10, output_tokens=10)
    assert expected(b"", 1, None, 0).tokens == Tokens(input_tokens=1, output_tokens=0)


@pytest.mark.parametrize("absurd", [0, -1, -(10**40)])
def test_what_no_upstream_accepts_counts_as_not_given(absurd: int) -> None:
    assert reserved_tokens(b"", absurd, absurd, 512) == 512


def test_no_number_of_a_client_makes_the_estimate_outgrow_a_threshold() -> None:
    absurd = expected(b"", 10**30, 10**30, 512)
    assert absurd.reserved == 2**53
    assert absurd.tokens.output_tokens == 128 * 512, "what is billed for a client that left is what upstreams would do"


@pytest.mark.parametrize("header", ["data:image/png;base64,", "data:audio/wav;codec=1;base64,"])
def test_data_urls_are_left_out(header: str) -> None:
    url = header + "QUJD" * 1000
    body = json.dumps({"a": {"url": url}, "b": [url]}).encode()
    assert reserved_tokens(body, 1, 1, 1) == -(-(len(body) - 2 * len(url)) // 4) + 1


@pytest.mark.parametrize(
    "value",
    [
        "data: this is prose, not a URL",
        "data:,this too has spaces",
        "data:,a_text_without_any_space",
        "data:text/plain;base64,QUJD",
        "see data:image/png;base64,QUJD",
        '{"url": "data:image/png;base64,QUJD"}',
        "data:no-comma",
        "data:image/png;base64,and then prose that only begins like a URL",
    ],
)
def test_text_that_only_mentions_data_counts(value: str) -> None:
    body = json.dumps([value]).encode()
    assert reserved_tokens(body, 1, 1, 1) == -(-len(body) // 4) + 1


def test_recordings_are_left_out() -> None:
    audio = "QUJD" * 1000
    body = json.dumps([{"input_audio": {"data": audio, "format": "wav"}}, {"data": audio}]).encode()
    assert reserved_tokens(body, 1, 1, 1) == -(-(len(body) - 2 * len(audio)) // 4) + 1


@pytest.mark.parametrize(
    "value", ["QUJD" * 255, "prose " * 500, "QUJD" * 100 + " and then prose" * 100, '{"data":"' + "A" * 99]
)
def test_what_is_called_data_and_is_no_recording_counts(value: str) -> None:
    body = json.dumps({"data": value, "content": json.dumps({"data": "QUJD" * 1000})}).encode()
    assert reserved_tokens(body, 1, 1, 1) == -(-len(body) // 4) + 1
    assert reserved_tokens(b'{"data":"' + b"A" * 2000, 1, 1, 1) == 503 + 1


def test_a_body_cut_short_inside_a_data_url_counts_whole() -> None:
    assert reserved_tokens(b'["data:,aaaaaaa', 1, 1, 1) == 5


def test_the_first_mean_holds_until_an_answer_is_known() -> None:
    means = CompletionMeans()
    assert means.mean("lab/a") == FIRST_MEAN
    means.learn("lab/a", 100)
    assert means.mean("lab/a") == 100
    assert means.mean("lab/b") == FIRST_MEAN


def test_the_mean_follows_newer_answers_and_is_of_one_choice() -> None:
    means = CompletionMeans()
    means.learn("lab/a", 100)
    means.learn("lab/a", 520, n=2)
    assert means.mean("lab/a") == 110
    for _ in range(200):
        means.learn("lab/a", 40)
    assert means.mean("lab/a") == 41  # rounded up


def test_means_are_bounded() -> None:
    means = CompletionMeans(size=2)
    for slug in ("lab/a", "lab/b", "lab/c"):
        means.learn(slug, 10)
    assert [means.mean(f"lab/{name}") for name in "abc"] == [FIRST_MEAN, 10, 10]


def test_beyond_a_thousand_data_urls_the_rest_counts_as_text() -> None:
    url = '"data:image/png;base64,x"'
    body = f"[{','.join([url] * 1500)}]".encode()
    assert reserved_tokens(body, 1, 1, 1) == -(-(len(body) - 1000 * (len(url) - 2)) // 4) + 1
