"""Whatever clients and upstreams send on any route is read, refused by name or passed on; no reader raises.

What Anthropic's SDK reads of a passed stream is what it reads of the upstream's own, except for `model`.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.dialects import media, upstream_objects
from proxy.dialects.chat import Invalid
from proxy.dialects.routes import messages, table
from proxy.dialects.routes.api import ApiRoute
from schemas.usage import MOST_TOKENS, RouteName
from tests.unit.proxy.dialects.anthropic import vendor
from tests.unit.proxy.dialects.routes import responses_events

SLUG = "lab/model"
ROUTES = pytest.mark.parametrize("api", table.ROUTES.values(), ids=[name.value for name in table.ROUTES])
NAMES = st.sampled_from(
    ["model", "stream", "prompt", "input", "messages", "content", "type", "text", "image", "source", "data", "tools",
     "max_tokens", "max_output_tokens", "best_of", "n", "background", "metadata", "system", "usage", "input_tokens",
     "output_tokens", "prompt_tokens", "completion_tokens", "choices", "message", "response", "output", "delta",
     "stop_reason", "content_block", "item", "error", "id", "x"]
)  # fmt: skip
KINDS = st.sampled_from(
    ["message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "error", "ping",
     "response.created", "response.completed", "response.failed", "response.output_text.delta", "image", "document", ""]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-3, 2**60) | st.floats(allow_nan=False) | KINDS | st.text(max_size=4)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=15
)
BODIES = st.builds(
    lambda members, name: json.dumps(members | name).encode(),
    st.dictionaries(NAMES, VALUES, max_size=5),
    st.sampled_from([{"model": SLUG}, {}]),
)
JUNK = st.binary(max_size=40) | st.sampled_from([b"", b"[", b"{}", b'{"model":"a"', b"\xef\xbb\xbf{}", b"NaN", b'"x"'])
EVENTS = st.lists(
    st.one_of(
        st.builds(lambda kind, more: vendor.wire([more | {"type": kind}]), KINDS, st.dictionaries(NAMES, VALUES)),
        st.sampled_from([*([event] for event in vendor.events(vendor.BLOCKS))]).map(vendor.wire),
        st.sampled_from([responses_events.created(), responses_events.delta("é"), responses_events.last()]),
        st.sampled_from([b": ping\n\n", b"data: {\n\n", b"data:\r\n\r\n", b"data: [DONE]\n\n", b"event: x\r\r"]),
        st.binary(max_size=12),
    ),
    max_size=6,
).map(b"".join)
CUTS = st.lists(st.integers(0, 4000), max_size=6)


def cut(text: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in cuts)})
    return [text[start:stop] for start, stop in itertools.pairwise(places)]


@ROUTES
@settings(max_examples=40)
@given(body=BODIES | JUNK)
def test_a_body_is_taken_or_refused_by_name(api: ApiRoute, body: bytes) -> None:
    asked = api.parse(body)
    upstream_objects.named(body)
    if isinstance(asked, Invalid):
        assert asked.message
        return
    assert asked.choices is None or asked.choices >= 1
    sent = api.upstream_body(asked, "their-model")
    if api.is_opaque:
        assert sent == body
        return
    kept = {name: value for name, value in json.loads(body).items() if name not in {"model", "stream_options"}}
    found = json.loads(sent)
    assert found.pop("model") == "their-model"
    found.pop("stream_options", None)
    assert found == kept
    assert 1 <= api.prompt_tokens(body, otherwise=1, costs=media.USUAL) <= MOST_TOKENS


@ROUTES
@settings(max_examples=40)
@given(body=BODIES | JUNK)
def test_a_whole_answer_is_read(api: ApiRoute, body: bytes) -> None:
    told = api.plain(body, SLUG)
    assert told.content_bytes >= 0
    if json_object(body) is None:
        assert told.body == body


@ROUTES
@settings(max_examples=40)
@given(text=EVENTS, cuts=CUTS)
@example(text=vendor.wire(vendor.events(vendor.BLOCKS)), cuts=[1, 70, 71, 500])
def test_any_cut_of_a_stream_gives_the_same(api: ApiRoute, text: bytes, cuts: list[int]) -> None:
    asked = table.ROUTES[RouteName.CHAT_COMPLETIONS].parse(b'{"model":"lab/model","stream":true}')
    assert not isinstance(asked, Invalid)
    seen = []
    for pieces in (cut(text, cuts), [text]):
        stream = api.stream(asked, SLUG)
        sent = b"".join([stream.feed(piece) for piece in pieces])
        stream.finish()
        seen.append((sent + stream.held, stream.tokens, stream.content_bytes, stream.is_whole, stream.failed))
    assert seen[0] == seen[1]
    if api.is_opaque:
        assert seen[0][0] == text


def json_object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Body(httpx2.SyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


def as_the_sdk_reads(pieces: list[bytes]) -> list[dict[str, Any]]:
    """Return what Anthropic's SDK reads of a stream."""
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(pieces))
    transport = httpx2.MockTransport(lambda _: answer)
    client = anthropic.Anthropic(
        api_key="none", base_url="http://up.invalid", http_client=httpx2.Client(transport=transport), max_retries=0
    )
    asked: anthropic.types.MessageParam = {"role": "user", "content": "Hi"}
    got: list[dict[str, Any]] = []
    try:
        stream: Any = client.messages.create(model="m", max_tokens=1, messages=[asked], stream=True)
        got.extend(event.model_dump() for event in stream)
    except (anthropic.APIError, ValueError) as error:
        got.append({"error": type(error).__name__})
    return got


BLOCKS = st.lists(
    st.sampled_from(vendor.BLOCKS) | st.text(max_size=9).map(lambda text: {"type": "text", "text": text}), max_size=4
)


WIRES = st.builds(
    lambda blocks, stop, size, end, junk: (junk, vendor.events(blocks, stop, size), end),
    BLOCKS,
    st.sampled_from(["end_turn", "tool_use", "max_tokens", "refusal", "new_reason"]),
    st.integers(1, 9),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([b"", b": ping\n\n", b'event: new_event\ndata: {"type":"new_event","model":"x"}\n\n']),
)
"""What comes before a stream, its events, and how its lines end."""


@settings(max_examples=60)
@given(wire=WIRES, lost=st.integers(0, 3), cuts=CUTS)
def test_the_sdk_reads_of_a_passed_stream_what_it_reads_of_the_upstreams(
    wire: tuple[bytes, list[dict[str, Any]], str], lost: int, cuts: list[int]
) -> None:
    junk, events, end = wire
    text = junk + vendor.wire(events[: len(events) - lost], end)
    stream = messages.MessageStream(SLUG)
    passed = [stream.feed(piece) for piece in cut(text, cuts)]
    stream.finish()
    original = as_the_sdk_reads([text])
    for event in original:
        if event.get("type") == "message_start":
            event["message"]["model"] = SLUG
    assert as_the_sdk_reads([*passed, stream.held]) == original
    assert stream.is_whole is (lost <= 1)
