"""A stream comes out the same however the network cuts it, and no whole event waits for the next (contract 3)."""

import itertools
import json
import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.dialects import answers
from proxy.dialects.answers import StreamReader

SLUG = "lab/model"
DONE = "data: [DONE]"
COUNTS = {"prompt_tokens": 5, "completion_tokens": 2}
ENDINGS = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text('ab"\\{}[]:, é\u2028', max_size=8) | st.sampled_from(
    ['"model":"x"', '"usage":{', "data: [DONE]", "\n\n", "\r"]
)
MODEL = st.sampled_from(["theirs", 'the"irs', "", "model"])


@st.composite
def chunks(draw: st.DrawFn) -> dict[str, object]:
    chunk: dict[str, object] = {"choices": [{"delta": {"content": draw(TEXT), "model": "kept"}}]}
    if draw(st.booleans()):
        chunk = {"model": draw(MODEL)} | chunk if draw(st.booleans()) else chunk | {"model": draw(MODEL)}
    if draw(st.booleans()):
        chunk["usage"] = draw(st.sampled_from([None, COUNTS, {"prompt_tokens": -1}]))
    if draw(st.integers(0, 3)) == 0:
        chunk["choices"] = []
    return chunk


DATA = chunks().map(lambda chunk: f"data: {json.dumps(chunk, ensure_ascii=False)}")
FIELDS = st.sampled_from(
    [": ping", "event: x", "id: 7", "retry: 1", "data", "data:", "unknown", "data: {", 'data: {"model":']
)
JUNK = [
    b'"model":',
    b'"usage":{',
    b'"choices":[]',
    b'"x"',
    b"{",
    b"}",
    b"data:",
    b"\n",
    b"\r",
    b"[DONE]",
    b",",
    b"\xff",
]
EVENTS = st.lists(st.one_of(DATA, DATA, FIELDS), min_size=1, max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    text = ""
    for event in draw(st.lists(EVENTS, max_size=5)):
        text += "".join(line + draw(ENDINGS) for line in event)
        text += draw(ENDINGS) * draw(st.sampled_from([1, 1, 1, 2]))
    if draw(st.booleans()):
        text += DONE + draw(ENDINGS) + draw(st.sampled_from(["", "\n", "\r\n"]))
    return text.encode()


def follow(pieces: list[bytes], *, keep_usage: bool) -> tuple[bytes, bytes, StreamReader]:
    stream = StreamReader(SLUG, keep_usage=keep_usage)
    sent = b"".join([stream.feed(piece) for piece in pieces])
    stream.finish()
    return sent, stream.held, stream


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:stop] for start, stop in itertools.pairwise(edges)]


@given(streams(), st.lists(st.integers(0, 10_000), max_size=6), st.booleans())
@example(b'data: {"choices":[],"usage":{"prompt_tokens":1}}\r\n\r\ndata: [DONE]\r\n\r\n', [52], False)  # noqa: FBT003
def test_any_cut_gives_the_same(text: bytes, places: list[int], keep_usage: bool) -> None:
    whole = follow([text], keep_usage=keep_usage)
    for pieces in (cut(text, places), [text[at : at + 1] for at in range(len(text))]):
        sent, held, stream = follow(pieces, keep_usage=keep_usage)
        assert sent + held == whole[0] + whole[1]
        assert stream.tokens == whole[2].tokens
        assert stream.done == whole[2].done
        assert stream.content_bytes == whole[2].content_bytes


@given(streams())
def test_what_has_arrived_whole_has_left(text: bytes) -> None:
    """Byte by byte: whenever an event is complete, all of it is out, except for `[DONE]`."""
    stream = StreamReader(SLUG, keep_usage=True)
    sent = b""
    for at in range(len(text)):
        sent += stream.feed(text[at : at + 1])
        if stream.done:
            return
        arrived = lines(text[: at + 1])
        if arrived[-2:] == [b"", b""]:
            assert sum(map(bool, lines(sent))) == sum(map(bool, arrived))


@given(streams(), st.booleans())
@example(b"data:\r\ndata: [DONE]\n", False)  # noqa: FBT003
@example(b"data\r\ndata: [DONE]\n", False)  # noqa: FBT003
def test_what_a_client_reads(text: bytes, keep_usage: bool) -> None:
    """Against a slow and obvious reader: the same events, each with the slug at its top, less the usage chunks."""
    sent, held, stream = follow([text], keep_usage=keep_usage)
    came = read(text)
    if "[DONE]" in came:
        came = came[: came.index("[DONE]") + 1]
    wanted = [chunk for data in came if (chunk := seen(data, keep_usage=keep_usage)) is not None]
    got = [as_json(data) for data in read(sent + held)]
    assert stream.done == ("[DONE]" in wanted)
    assert got[: len(wanted)] == wanted
    assert stream.done or len(got) == len(wanted)


@given(st.lists(st.binary(max_size=9) | st.sampled_from(JUNK), max_size=9).map(b"".join))
@example(b'{"usage":{"prompt_tokens":1,"completion_tokens":1,"\xff":2}}')
@example(b'{"\xff":"\xff","model":"\xff","choices":[{"content":"\xff"}]}')
@example(b'{"model":' + b"[" * 5000)
@example(b'{"usage":{"x":' + b"[" * 900 + b"]" * 900 + b"}}")
def test_no_bytes_make_an_exception(text: bytes) -> None:
    answers.plain(text, SLUG)
    for pieces in ([text], [b"data: ", text, b"\n\n", text]):
        sent, held, _ = follow(pieces, keep_usage=False)
        assert len(sent + held) <= 2 * len(text) + 8 + text.count(b'"model"') * 2 * (len(SLUG) + 2)


def lines(text: bytes) -> list[bytes]:
    return re.split(rb"\r\n|\n|\r", text)


def read(text: bytes) -> list[str]:
    """Return the data of each event as a browser would (HTML Living Standard), the unfinished last one too."""
    events: list[str] = []
    data: list[str] = []
    for line in [*lines(text), b""]:
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" ").decode())
        elif not line:
            events += ["\n".join(data)] if data else []
            data = []
    return events


def as_json(data: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


def seen(data: str, *, keep_usage: bool) -> Any:
    """Return an event as its client must see it; None where it must not."""
    chunk = as_json(data)
    if not isinstance(chunk, dict):
        return chunk
    if not keep_usage and isinstance(chunk.get("usage"), dict) and not chunk.get("choices"):
        return None
    return chunk | {"model": SLUG} if "model" in chunk else chunk
