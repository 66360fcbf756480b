"""Completions and embeddings: how much is asked for, and what the prompt comes to (contract 3.3)."""

import json
from typing import Any

import pytest

from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.routes import completions, embeddings, texts
from proxy.dialects.routes.api import ApiRoute
from proxy.limits import estimate


def asked(route: ApiRoute, **members: Any) -> ChatRequest:
    found = route.parse(json.dumps({"model": "lab/model"} | members).encode())
    assert not isinstance(found, Invalid), found
    return found


@pytest.mark.parametrize(
    ("members", "choices", "token_ids"),
    [
        ({"prompt": "Hi"}, 1, 0),
        ({"prompt": "Hi", "n": 3}, 3, 0),
        ({"prompt": ["Hi", "Ho"], "n": 3}, 6, 0),
        ({"prompt": "Hi", "best_of": 5, "n": 2}, 5, 0),
        ({"prompt": [1, 2, 3]}, 1, 3),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4, 3),
        ({"prompt": ["[1", "2,3"]}, 2, 0),
        ({"prompt": []}, 1, 0),
        ({}, 1, 0),
    ],
)
def test_choices_and_ids_of_a_completion(members: dict[str, Any], choices: int, token_ids: int) -> None:
    found = asked(completions.ROUTE, max_tokens=7, **members)
    assert (found.choices, found.token_ids, found.max_tokens) == (choices, token_ids, 7)


@pytest.mark.parametrize(
    ("members", "echoed_bytes"),
    [
        ({"prompt": "é", "echo": True, "n": 3}, 6),
        ({"prompt": ["Hi", "Hello"], "echo": True}, 7),
        ({"prompt": [1, 2, 3], "echo": True}, 12),
        ({"prompt": "Hi", "echo": True, "n": 1, "best_of": 5}, 2),
        ({"prompt": "Hi", "echo": False}, 0),
        ({"prompt": "Hi"}, 0),
        ({"echo": True}, 0),
    ],
)
def test_what_of_an_answer_is_the_prompt_again(members: dict[str, Any], echoed_bytes: int) -> None:
    assert asked(completions.ROUTE, **members).echoed_bytes == echoed_bytes


def test_ids_are_reserved_one_token_each_although_their_text_is_short() -> None:
    found = asked(embeddings.ROUTE, input=[1] * 4000)
    prompt = estimate.prompt_bound(found.body, found.token_ids)
    expected = estimate.expected(prompt, found.choices, found.max_tokens, 0, 16_384)
    assert (expected.reserved, expected.tokens.input_tokens, expected.tokens.output_tokens) == (4000, 4000, 0)


def test_nothing_of_an_embedding_is_streamed_or_written() -> None:
    found = asked(embeddings.ROUTE, input="Hi", stream=True, max_tokens=9)
    assert (found.stream, found.max_tokens) == (False, None)


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ({"input": "Hi"}, 1),
        ({"input": "x" * 9}, 3),
        ({"input": "é" * 4}, 2),
        ({"input": ["abcd", "abcd"]}, 2),
        ({"input": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2], [3, 4]]}, 4),
        ({"prompt": ""}, 1),
        ({}, 1),
    ],
)
def test_what_a_prompt_is_billed_as_where_nobody_counted(given: dict[str, Any], tokens: int) -> None:
    assert texts.prompt_tokens(json.dumps(given).encode(), otherwise=99) == tokens


def test_what_cannot_be_looked_into_goes_by_the_other_estimate() -> None:
    assert texts.prompt_tokens(b'{"input":[' + b"1," * 200_000 + b"1]}", otherwise=200_001) == 200_001
    assert texts.prompt_tokens(b"nothing", otherwise=7) == 7


def test_the_answer_of_an_embedding_keeps_its_vectors() -> None:
    body = (
        b'{"object":"list","data":[{"embedding":"AAAA"}],"model":"theirs","usage":{"prompt_tokens":8,"total_tokens":8}}'
    )
    found = embeddings.plain(body, "lab/model")
    assert found.body == body.replace(b"theirs", b"lab/model")
    assert found.tokens is not None
    assert (found.tokens.input_tokens, found.tokens.output_tokens, found.content_bytes) == (8, 0, 0)


@pytest.mark.parametrize("body", [b'{"model":"m","data":[]}', b"no JSON", b'{"data":["text"],"text":"written"}'])
def test_an_embedding_without_counts_has_no_output(body: bytes) -> None:
    found = embeddings.plain(body, "lab/model")
    assert (found.tokens, found.content_bytes) == (None, 0)
