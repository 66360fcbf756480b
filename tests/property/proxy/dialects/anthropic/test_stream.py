"""A translated stream is the same however the network cuts it, and says what the same answer says when it is whole."""

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.anthropic import answer
from proxy.dialects.anthropic.stream import TranslatedStream
from tests.unit.proxy.dialects.anthropic import vendor

TEXT = st.text('ab"\\{}: é\u2028\U0001f600\n\r', max_size=12)
SOME = TEXT.filter(bool)
VALUES = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | TEXT, lambda inner: st.lists(inner, max_size=2))
BLOCKS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, SOME),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "c2ln"}, TEXT),
    st.just({"type": "redacted_thinking", "data": "ZGF0YQ=="}),
    st.builds(
        lambda number, given: {"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": given},
        st.integers(0, 9),
        st.dictionaries(TEXT, VALUES, max_size=3),
    ),
)
STOPS = st.sampled_from(["end_turn", "tool_use", "max_tokens", "refusal", "new"])
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def follow(chunks: list[bytes]) -> tuple[bytes, TranslatedStream]:
    found = TranslatedStream(created=1)
    return b"".join([found.feed(chunk) for chunk in chunks]) + found.finish(), found


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(edges)]


def gathered(sent: bytes) -> dict[str, Any]:
    """Return the answer that a stream's chunks come to, put together by the API's rules."""
    lines = [line.removeprefix(b"data: ") for line in sent.split(b"\n\n") if line.startswith(b"data: ")]
    assert lines.pop() == b"[DONE]"
    chunks = [json.loads(line) for line in lines]
    said: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    reason = None
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        reason = choice["finish_reason"] or reason
        for name, value in choice["delta"].items():
            if name == "tool_calls":
                for call in value:
                    add_call(said.setdefault(name, []), call)
            elif value and name != "role":
                said[name] = (said.get(name) or type(value)()) + value
    return {"message": said, "finish_reason": reason, "usage": chunks[-1]["usage"]}


def add_call(calls: list[Any], piece: dict[str, Any]) -> None:
    index = piece["index"]
    if index == len(calls):
        calls.append({name: value for name, value in piece.items() if name != "index"})
    else:
        calls[index]["function"]["arguments"] += piece["function"]["arguments"]


@given(st.lists(BLOCKS, max_size=4), STOPS, st.integers(1, 5), ENDS, st.lists(st.integers(0, 10_000), max_size=6))
def test_any_cut_gives_the_same(
    blocks: list[dict[str, Any]], stop: str, size: int, end: str, places: list[int]
) -> None:
    text = vendor.wire(vendor.events(blocks, stop, size), end)
    whole, stream = follow([text])
    assert stream.done
    for chunks in (cut(text, places), [text[at : at + 1] for at in range(len(text))]):
        assert follow(chunks)[0] == whole


@given(st.lists(BLOCKS, max_size=4), STOPS, st.integers(1, 5))
def test_streamed_and_whole_are_one_answer(blocks: list[dict[str, Any]], stop: str, size: int) -> None:
    streamed = gathered(follow([vendor.wire(vendor.events(blocks, stop, size))])[0])
    plain = json.loads(answer.plain(json.dumps(vendor.whole(blocks, stop)).encode(), created=1))
    (choice,) = plain["choices"]
    assert streamed["finish_reason"] == choice["finish_reason"]
    assert streamed["usage"] == plain["usage"]
    for said in (streamed["message"], choice["message"]):
        for call in said.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    assert streamed["message"] == choice["message"]


@given(st.lists(BLOCKS, max_size=3), st.integers(0, 10_000), st.binary(max_size=30))
def test_no_bytes_make_it_raise_and_no_end_that_is_not_whole_has_done(
    blocks: list[dict[str, Any]], place: int, junk: bytes
) -> None:
    text = vendor.wire(vendor.events(blocks))
    place %= len(text) + 1
    for bent in (text[:place], text[:place] + junk + text[place:]):
        sent, stream = follow([bent])
        assert stream.done == sent.endswith(b"data: [DONE]\n\n")
        assert sum((stream.done, stream.failed, stream.broken)) == 1
