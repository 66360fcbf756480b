"""What the OpenAI SDK makes of Tollgate's output is what it makes of the upstream's, and what it reads is billed.

The real SDK reads both, over a transport without a socket. Different are only `model`, the usage chunk that nobody
asked for, and the error that ends a stream which is not whole. A byte order mark is left out for the SDK, which does
not know what the HTML Living Standard says of it (9.2.5).
"""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from proxy.core import endings
from proxy.dialects import answers
from proxy.dialects.chat import Invalid
from proxy.dialects.routes import table
from proxy.dialects.routes.api import Stream
from proxy.limits.estimate import TokenCounts
from schemas.usage import Outcome, RouteName, UsageSource

SLUG = "lab/model"
LIKELY = TokenCounts(input_tokens=77, output_tokens=99)
BOM = "\ufeff"
DONE = "data: [DONE]"
BROKEN_OFF = ("error", "upstream_error")
UNREADABLE = ("unreadable", "")

Read = dict[str, Any] | tuple[str, Any]
"""A chunk as a dict, or how the reading ended that was not an orderly end."""


CALLS: dict[str, Callable[..., Any]] = {
    "chat": lambda client, **more: client.chat.completions.create(model="m", messages=[], **more),
    "completions": lambda client, **more: client.completions.create(model="m", prompt="", **more),
    "embeddings": lambda client: client.embeddings.create(model="m", input="", encoding_format="float"),
}
"""How the SDK calls each route that is tried here."""
APIS = {
    "chat": table.ROUTES[RouteName.CHAT_COMPLETIONS],
    "completions": table.ROUTES[RouteName.COMPLETIONS],
    "embeddings": table.ROUTES[RouteName.EMBEDDINGS],
}


class Body(httpx2.SyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


class Sdk:
    """The OpenAI SDK in front of a server that sends what it is told to."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        transport = httpx2.MockTransport(self._answer)
        self._client = openai.OpenAI(
            api_key="none",
            base_url="http://up.invalid/v1",
            http_client=httpx2.Client(transport=transport),
            max_retries=0,
        )

    def stream(self, pieces: list[bytes], form: str = "chat") -> list[Read]:
        """Return what a client reads of a stream."""
        self._pieces = pieces
        got: list[Read] = []
        try:
            with CALLS[form](self._client, stream=True) as chunks:
                got.extend(as_dict(chunk) for chunk in chunks)
        except openai.APIError as error:
            got.append(("error", error.code if error.code == "upstream_error" else repr(error.body)))
        except ValueError:  # of JSON, or of UTF-8
            got.append(UNREADABLE)
        return got

    def plain(self, body: bytes, form: str = "chat") -> Read:
        """Return what a client reads of a plain answer."""
        self._pieces = [body]
        try:
            return as_dict(CALLS[form](self._client))
        except ValueError:
            return UNREADABLE

    def _answer(self, _request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, stream=Body(self._pieces))


SDK = Sdk()


def as_dict(chunk: Any) -> Read:
    return chunk.to_dict(warnings=False) if hasattr(chunk, "to_dict") else ("other", repr(chunk))


def same(one: Any, other: Any) -> bool:
    """Compare as JSON, to which two NaN are the same."""
    return json.dumps(one, default=repr) == json.dumps(other, default=repr)


NAMES = st.sampled_from(["their-model", 'the"irs', "", "model", "mødel"])
TEXT = st.text(max_size=8) | st.sampled_from(['"model":"x"', '"usage":{', DONE, "\n\n", "\r", "😀", "\ud83d", BOM])
NUMBER = st.integers(0, 10**6)
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [float("nan"), float("inf"), float("-inf"), 1e300, 10**30, -1, None, "", [], {"model": "kept"}]
)


@st.composite
def usages(draw: st.DrawFn) -> tuple[dict[str, Any], TokenCounts]:
    """Return a usage in one of its dialects, and what it says."""
    prompt, completion = draw(st.integers(1, 10**6)), draw(NUMBER)
    cached = draw(st.integers(0, prompt))
    hidden = draw(st.sampled_from([0, 0, 386]))
    number: Callable[[int], Any] = draw(st.sampled_from([int, float]))
    names = draw(st.sampled_from([("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")]))
    usage: dict[str, Any] = {names[0]: number(prompt), names[1]: number(completion)}
    if hidden or draw(st.booleans()):
        usage["total_tokens"] = number(prompt + completion + hidden)
    if not completion and draw(st.booleans()):
        usage[names[1]] = None
    details = f"{names[0]}_details"
    usage |= draw(
        st.sampled_from(
            [{details: {"cached_tokens": cached}}, {"cached_tokens": cached}, {"prompt_cache_hit_tokens": cached}]
        )
    )
    usage |= draw(st.dictionaries(st.sampled_from(["cost", "queue_time", "details"]), ODD, max_size=2))
    tokens = TokenCounts(input_tokens=prompt, output_tokens=completion + hidden, cached_input_tokens=cached)
    return usage, tokens


@st.composite
def chunks(draw: st.DrawFn, name: str, form: str) -> dict[str, Any]:
    delta = draw(st.dictionaries(st.sampled_from(["content", "reasoning", "refusal", "model"]), TEXT, max_size=2))
    wrote: dict[str, Any] = {"delta": delta} if form == "chat" else {"text": draw(TEXT)}
    choice = {"index": draw(st.integers(0, 1)), "finish_reason": None, **wrote}
    if draw(st.booleans()):
        choice["logprobs"] = {"content": [{"token": "a", "logprob": draw(ODD)}]}
    members: list[tuple[str, Any]] = [("id", "c1"), ("choices", [choice]), ("odd", draw(ODD))]
    if draw(st.integers(0, 3)):
        members.append(("model", name))
    if draw(st.integers(0, 9)) == 0:
        members.append(("error", draw(st.sampled_from([None, {"message": "out of memory"}, "busy"]))))
    return dict(draw(st.permutations(members)))


def place(draw: st.DrawFn, usage: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the last chunk, with its usage at one of its places."""
    ended: list[dict[str, Any]] = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in (0, 1)]
    return draw(
        st.sampled_from(
            [
                {"id": "c1", "model": name, "choices": [], "usage": usage},
                {"id": "c1", "model": name, "choices": ended, "usage": usage},
                {"id": "c1", "model": name, "choices": [ended[0], ended[1] | {"usage": usage}]},
                {"id": "c1", "model": name, "choices": ended, "x_groq": {"id": "r1", "usage": usage}},
            ]
        )
    )


def written(draw: st.DrawFn, value: Any) -> str:
    """Return a value as one of the JSON texts for it that clients read."""
    ascii_only = draw(st.booleans())
    text = json.dumps(value, ensure_ascii=ascii_only, separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))
    if draw(st.integers(0, 5)) == 0:
        text = text.replace('"model":', '"mod\\u0065l":')
    return text


@st.composite
def streams(draw: st.DrawFn, form: str = "chat") -> tuple[bytes, TokenCounts | None]:
    """Return a stream, and the counts at its end if it has any."""
    name = draw(NAMES)
    ending = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    data = draw(st.sampled_from(["data: ", "data:", "event: chunk{}data: ", "retry: 5{}data:"])).replace("{}", ending)
    events = [data + written(draw, chunk) for chunk in draw(st.lists(chunks(name, form), max_size=4))]
    for _ in range(draw(st.integers(0, 2))):
        odd = draw(st.sampled_from([": ping", "retry: 9", "unknown: x", "data: [1]", 'data: {"a":', "data\ndata: {}"]))
        events.insert(draw(st.integers(0, len(events))), odd.replace("\n", ending))
    tokens: TokenCounts | None = None
    if draw(st.booleans()):
        usage, tokens = draw(usages())
        events.append(data + written(draw, place(draw, usage, name)))
    if draw(st.booleans()):
        events.append(DONE)
    text = "".join(one + ending * 2 for one in events)
    if draw(st.integers(0, 5)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
        tokens = None
    return draw(st.sampled_from(["", BOM])).encode() + text.encode("utf-8", "surrogatepass"), tokens


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:stop] for start, stop in itertools.pairwise(edges)]


def through(pieces: list[bytes], form: str, *, keep_usage: bool) -> tuple[list[bytes], endings.Billed, Stream]:
    asked = {"model": "m", "stream": True, "stream_options": {"include_usage": keep_usage}}
    request = APIS[form].parse(json.dumps(asked).encode())
    assert not isinstance(request, Invalid)
    stream = APIS[form].stream(request, SLUG)
    sent = [stream.feed(piece) for piece in pieces]
    stream.finish()
    ending = endings.streamed(stream, lambda: LIKELY)
    assert ending.last is not None
    return [*sent, ending.last], ending, stream


def seen(read: Read, *, keep_usage: bool) -> Read | None:
    """Return what a client must see of what its SDK reads from the upstream; None where it must not."""
    if not isinstance(read, dict):
        return read
    if isinstance(read.get("usage"), dict) and not read.get("choices") and not keep_usage:
        return None
    return read | {"model": SLUG} if "model" in read else read


@settings(max_examples=1000, deadline=None)
@given(streams(), st.lists(st.integers(0, 10_000), max_size=6), st.booleans())
def test_a_stream(case: tuple[bytes, TokenCounts | None], places: list[int], keep_usage: bool) -> None:
    reads_the_same(case, places, "chat", keep_usage=keep_usage)


@settings(max_examples=200, deadline=None)
@given(streams("completions"), st.lists(st.integers(0, 10_000), max_size=6), st.booleans())
def test_a_stream_of_completions(case: tuple[bytes, TokenCounts | None], places: list[int], keep_usage: bool) -> None:
    reads_the_same(case, places, "completions", keep_usage=keep_usage)


def reads_the_same(case: tuple[bytes, TokenCounts | None], places: list[int], form: str, *, keep_usage: bool) -> None:
    """Compare what the SDK reads of a stream with what it reads of ours."""
    text, tokens = case
    came = SDK.stream([text.removeprefix(BOM.encode())], form)
    sent, ending, stream = through(cut(text, places), form, keep_usage=keep_usage)
    got = SDK.stream(sent, form)
    wanted = [one for read in came if (one := seen(read, keep_usage=keep_usage)) is not None]
    ended = UNREADABLE in came or stream.failed
    whole = ending.outcome is Outcome.COMPLETE
    event("whole" if whole else "told of an error" if not ended else "an error, or unreadable")
    if not whole and got[-1:] == [BROKEN_OFF] and UNREADABLE in wanted:
        wanted.remove(UNREADABLE)  # half a character at the end, in an event that is not passed on
        assert same(got, [*wanted, BROKEN_OFF])
    elif ended or whole:
        assert same(got[: len(wanted)], wanted)
        assert len(got) in (len(wanted), len(wanted) + (not whole))
    else:
        assert same(got, [*wanted, BROKEN_OFF])
    assert stream.failed or not any(isinstance(read, tuple) and read[0] == "error" for read in came)
    if tokens is not None and not stream.failed and UNREADABLE not in came:
        event("counted")
        assert (ending.count.tokens, ending.count.source) == (tokens, UsageSource.PROVIDER)


@st.composite
def plains(draw: st.DrawFn, form: str = "chat") -> tuple[bytes, TokenCounts | None]:
    """Return a plain answer in an encoding that Python's reader takes, and its counts if it has any."""
    message = {"role": "assistant", "content": draw(TEXT)}
    wrote: dict[str, Any] = {"message": message} if form == "chat" else {"text": draw(TEXT)}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": draw(ODD), **wrote}
    answer: tuple[str, Any] = ("choices", [choice])
    if form == "embeddings":
        answer = ("data", [{"object": "embedding", "index": 0, "embedding": draw(st.lists(st.floats(), max_size=3))}])
    members: list[tuple[str, Any]] = [("id", "c1"), answer, ("odd", draw(ODD))]
    if draw(st.integers(0, 3)):
        members.append(("model", draw(NAMES)))
    tokens: TokenCounts | None = None
    if draw(st.booleans()):
        usage, tokens = draw(usages())
        where = 0 if form == "embeddings" else draw(st.integers(0, 2))
        if where == 0:
            members.append(("usage", usage))
        elif where == 1:
            choice["usage"] = usage
        else:
            members.append(("x_groq", {"usage": usage}))
    text = written(draw, dict(draw(st.permutations(members))))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be"]))
    return draw(st.sampled_from(["", " ", "\n\n"])).encode() * (encoding == "utf-8") + text.encode(
        encoding, "surrogatepass"
    ), tokens


@settings(max_examples=1000, deadline=None)
@given(plains())
def test_a_plain_answer(case: tuple[bytes, TokenCounts | None]) -> None:
    is_read_the_same(case, "chat")


@pytest.mark.parametrize("form", ["completions", "embeddings"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_plain_answer_of_other_routes(form: str, data: st.DataObject) -> None:
    is_read_the_same(data.draw(plains(form)), form)


def is_read_the_same(case: tuple[bytes, TokenCounts | None], form: str) -> None:
    """Compare what the SDK reads of a plain answer with what it reads of ours."""
    body, tokens = case
    came = SDK.plain(body, form)
    ending = endings.plain(200, [], APIS[form].plain(body, SLUG), lambda: LIKELY)
    assert ending.reply is not None
    got = SDK.plain(ending.reply.body, form)
    assert same(got, seen(came, keep_usage=True))
    assert ending.count is not None
    if tokens is not None and isinstance(came, dict):
        event("counted")
        assert ending.count == answers.Count(tokens, UsageSource.PROVIDER)
    else:
        assert ending.count.source is UsageSource.ESTIMATED
