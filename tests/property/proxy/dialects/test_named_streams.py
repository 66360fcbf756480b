"""A stream of named events comes out the same however the network cuts it, and as its SDK reads the original."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.named_events import NamedStreamReader
from proxy.dialects.routes.responses import ResponseStream
from tests.unit.proxy.dialects.routes import responses_events as wire

SLUG = "lab/model"
TEXT = st.text('ab"\\{}[]:, é\u2028\n', max_size=8) | st.sampled_from(['"model":"x"', "data: [DONE]", "\n\n", "\r"])
JUNK = st.sampled_from([b": ping\n\n", b"event: x\n\n", b"data: {\n\n", b"data:\r\n\r\n", b"data: 7\n\n", b"\r\r"])
DELTAS = TEXT.map(wire.delta)
NESTED = st.recursive(
    st.none() | TEXT | st.integers(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
)
ANY = st.builds(
    lambda kind, response: b"data: %b\n\n" % json.dumps({"type": kind, "response": response}).encode(),
    st.sampled_from(["response.created", "response.completed", "response.failed", "error", "new", ""]),
    NESTED,
)
EVENTS = st.lists(st.one_of(DELTAS, DELTAS, JUNK, ANY, st.just(wire.created())), max_size=6)
LAST = st.sampled_from([b"", wire.last(), wire.last("incomplete"), wire.last("failed"), wire.last().rstrip(b"\n")])


def follow(pieces: list[bytes], stream: NamedStreamReader) -> tuple[bytes, bytes, tuple[object, ...]]:
    sent = b"".join([stream.feed(piece) for piece in pieces])
    stream.finish()
    facts = (stream.tokens, stream.content_bytes, stream.is_whole, stream.is_counted, stream.failed)
    return sent, stream.held, facts


@given(events=EVENTS, last=LAST, cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_any_cut_gives_the_same(events: list[bytes], last: bytes, cuts: list[int]) -> None:
    text = b"".join(events) + last
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[start:stop] for start, stop in itertools.pairwise(places)]
    assert follow(pieces, ResponseStream(SLUG)) == follow([text], ResponseStream(SLUG))


@given(texts=st.lists(TEXT, max_size=5), last=st.sampled_from(["completed", "incomplete"]))
def test_only_the_models_name_is_changed(texts: list[str], last: str) -> None:
    text = wire.created() + b"".join(map(wire.delta, texts)) + wire.last(last)
    sent, held, facts = follow([text], ResponseStream(SLUG))
    assert sent + held == text.replace(b'"model": "their-model"', b'"model": "lab/model"')
    assert facts[1] == sum(len(each.encode()) for each in texts)
    assert facts[2:] == (True, True, False)
