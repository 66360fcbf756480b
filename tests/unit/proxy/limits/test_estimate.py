"""The estimate a request reserves (contract 3.1)."""

import json

import pytest

from proxy.limits.estimate import FIRST_SIZE, CompletionSizes, TokenCounts, expected, prompt_bound

MOST = 16_384


def reserved_tokens(body: bytes, n: int | None, max_tokens: int | None, likely: int) -> int:
    return expected(prompt_bound(body), n, max_tokens, likely, MOST).reserved


def test_the_prompt_is_its_bytes_by_four_rounded_up() -> None:
    assert reserved_tokens(b"x" * 401, None, 7, 512) == 101 + 7


def test_choices_multiply_the_completion_and_the_mean_stands_in_for_max_tokens() -> None:
    assert reserved_tokens(b"", 3, 100, 512) == 300
    assert reserved_tokens(b"", 3, None, 512) == 1536


def test_what_is_likely_is_the_mean_or_the_clients_lower_bound() -> None:
    assert expected(10, 2, None, 30, MOST).tokens == TokenCounts(input_tokens=10, output_tokens=60)
    assert expected(10, 2, 1000, 30, MOST).tokens == TokenCounts(input_tokens=10, output_tokens=60)
    assert expected(10, 2, 5, 30, MOST).tokens == TokenCounts(input_tokens=10, output_tokens=10)
    assert expected(0, 1, None, 0, MOST).tokens == TokenCounts(input_tokens=1, output_tokens=0)


@pytest.mark.parametrize("absurd", [0, -1, -(10**40)])
def test_what_no_upstream_accepts_counts_as_not_given(absurd: int) -> None:
    assert reserved_tokens(b"", absurd, absurd, 512) == 512


def test_a_claim_reserves_no_more_than_the_model_can_answer() -> None:
    absurd = expected(0, 10**30, 10**30, 512, 4096)
    assert absurd.reserved == 128 * 4096
    assert absurd.tokens.output_tokens == 128 * 512, "what is billed for a client that left is what upstreams would do"
    assert expected(0, 1, 5000, 512, 4096).reserved == 4096
    assert expected(0, 1, None, 5000, 4096).reserved == 4096


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


def test_a_group_begins_with_the_slugs_answers_and_a_slug_with_the_first_size() -> None:
    sizes = CompletionSizes()
    assert sizes.likely("a", "lab/x") == FIRST_SIZE
    sizes.learn("a", "lab/x", 100, 1)
    assert [sizes.likely(group, "lab/x") for group in "ab"] == [100, 100]
    sizes.learn("b", "lab/x", 40, 1)
    assert [sizes.likely(group, "lab/x") for group in "abc"] == [100, 40, 100]
    assert sizes.likely("a", "lab/y") == FIRST_SIZE


def test_nine_of_ten_answers_are_not_above_what_is_likely_and_fifty_are_remembered() -> None:
    sizes = CompletionSizes()
    for tokens in range(1, 101):
        sizes.learn("a", "lab/x", tokens, 1)
    assert sizes.likely("a", "lab/x") == 95  # of 51 to 100
    for _ in range(44):
        sizes.learn("a", "lab/x", 1, 1)
    assert sizes.likely("a", "lab/x") == 95  # six large ones are left of fifty
    sizes.learn("a", "lab/x", 1, 1)
    assert sizes.likely("a", "lab/x") == 1


def test_other_groups_cheap_answers_and_claimed_choices_make_nobodys_estimate_small() -> None:
    sizes = CompletionSizes()
    sizes.learn("honest", "lab/x", 3000, 1)
    for _ in range(60):
        sizes.learn("other", "lab/x", 1, 1)
    assert sizes.likely("honest", "lab/x") == 3000
    sizes.learn("honest", "lab/x", 9001, 3)
    assert sizes.likely("honest", "lab/x") == 3001, "each of the three that came, rounded up"
    sizes.learn("honest", "lab/x", 9002, 0)
    assert sizes.likely("honest", "lab/x") == 9002


def test_what_is_remembered_is_bounded() -> None:
    sizes = CompletionSizes(size=2)
    for slug in ("lab/a", "lab/b", "lab/a", "lab/c"):
        sizes.learn("group", slug, 10, 1)
    assert [sizes.likely("group", f"lab/{name}") for name in "abc"] == [10, FIRST_SIZE, 10]


def test_beyond_a_thousand_data_urls_the_rest_counts_as_text() -> None:
    url = '"data:image/png;base64,x"'
    body = f"[{','.join([url] * 1500)}]".encode()
    assert reserved_tokens(body, 1, 1, 1) == -(-(len(body) - 1000 * (len(url) - 2)) // 4) + 1
