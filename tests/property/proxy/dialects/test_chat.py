"""Bodies reach the upstream byte for byte except for two fields, whatever they are made of (contract 3)."""

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.dialects import chat
from proxy.dialects.chat import ChatRequest, Invalid

BLANK = st.text(" \t\n\r", max_size=2)
NAMES = st.sampled_from(
    ["model", "stream", "stream_options", "include_usage", "metadata", "n", "x", 'q"u', "é", "\\", ""]
)
OURS = {"model", "stream", "stream_options", "metadata"}


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """Return a JSON string in any of its spellings."""
    out = []
    for letter in text:
        plain = json.dumps(letter, ensure_ascii=False)[1:-1]
        escaped = "".join(f"\\u{unit:04x}" for unit in utf16(letter))
        shown = st.sampled_from([plain, plain, plain, escaped, escaped.upper().replace("U", "u")])
        out.append(draw(shown))
    return '"' + "".join(out) + '"'


def utf16(letter: str) -> list[int]:
    raw = letter.encode("utf-16-be")
    return [int.from_bytes(raw[place : place + 2], "big") for place in range(0, len(raw), 2)]


TEXTS = (NAMES | st.text(max_size=6)).flatmap(spelled)
NUMBERS = st.sampled_from(["0", "-0", "1.0", "1e5", "1E+5", "-1.50", "123456789012345678901234567890", "1e999"])
LITERALS = st.sampled_from(["true", "false", "null"])


def joined(parts: st.SearchStrategy[str], open_: str, close: str) -> st.SearchStrategy[str]:
    part = st.tuples(BLANK, parts, BLANK).map("".join)
    return st.lists(part, max_size=3).map(lambda each: open_ + ",".join(each) + close)


def member(names: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(names, BLANK, st.just(":"), BLANK, values).map("".join)


VALUES = st.recursive(
    TEXTS | NUMBERS | LITERALS,
    lambda inner: joined(inner, "[", "]") | joined(member(NAMES.flatmap(spelled), inner), "{", "}"),
    max_leaves=8,
)
ONCE = ("n", "max_tokens", "max_completion_tokens")
"""Names that may stand once, with whatever value."""
OTHERS = member(NAMES.filter(lambda name: name.casefold() not in (*OURS, *ONCE, "store")).flatmap(spelled), VALUES)


@dataclass
class Made:
    """A body that must be accepted, and what the upstream must get of it."""

    body: str
    slug: str
    upstream: str
    upstream_value: dict[str, Any]


def loads(text: str) -> Any:
    """Read JSON so that nothing is lost: numbers stay as they are written, repeated names stay apart."""
    return json.loads(text, parse_float=str, parse_int=str, object_pairs_hook=tuple)


@st.composite
def bodies(draw: st.DrawFn) -> Made:
    slug = draw(st.text(max_size=8))
    own = [(member(spelled("model"), spelled(slug)), "model")]
    streams = draw(st.sampled_from([None, "true", "false", "null"]))
    if streams is not None:
        own.append((member(spelled("stream"), st.just(streams)), "stream"))
    if draw(st.booleans()):
        options = joined(member(NAMES.flatmap(spelled), VALUES), "{", "}") | st.just("null")
        own.append((member(spelled("stream_options"), options), "stream_options"))
    if draw(st.booleans()):
        pairs = joined(member(TEXTS, TEXTS), "{", "}") | st.just("null")
        own.append((member(spelled("metadata"), pairs), "metadata"))
    own += [(member(spelled(name), VALUES), "") for name in draw(st.sets(st.sampled_from(ONCE)))]
    parts = [(draw(one), name) for one, name in own] + [(other, "") for other in draw(st.lists(OTHERS, max_size=4))]
    parts = draw(st.permutations(parts))
    blanks = draw(st.lists(BLANK, min_size=2 * len(parts) + 2, max_size=2 * len(parts) + 2))
    wanted = [(replaced(text, name, streams == "true"), name) for text, name in parts]

    def whole(texts: list[str]) -> str:
        inside = ",".join(f"{blanks[2 * at]}{text}{blanks[2 * at + 1]}" for at, text in enumerate(texts))
        return f"{blanks[-1]}{{{inside}}}{blanks[-2]}"

    upstream = whole([text for text, _ in wanted])
    if streams == "true" and "stream_options" not in [name for _, name in parts]:
        upstream = upstream.replace("{", '{"stream_options":{"include_usage":true},', 1)
    return Made(whole([text for text, _ in parts]), slug, upstream, dict(loads(upstream)))


def replaced(text: str, name: str, stream: bool) -> str:
    """Return a member as the upstream must get it."""
    head, value = member_parts(text)
    if name == "model":
        return head + '"their model"'
    if name != "stream_options" or not stream:
        return text
    if value == "null":
        return head + '{"include_usage":true}'
    inner = inner_members(value)
    if any(json.loads(member_parts(each)[0].strip().rstrip(":").strip()) == "include_usage" for each in inner):
        return head + "{" + ",".join(map(with_usage, inner)) + "}"
    return head + '{"include_usage":true' + ("," if inner else "") + value[1:]


def with_usage(text: str) -> str:
    head, value = member_parts(text)
    if json.loads(head.strip().rstrip(":").strip()) != "include_usage":
        return text
    after = value[len(value.rstrip()) :]
    return f"{head}true{after}"


def member_parts(text: str) -> tuple[str, str]:
    """Cut ``"name" : value`` behind the colon and its blanks."""
    end = json.decoder.scanstring(text, text.index('"') + 1)[1]  # type: ignore[attr-defined]
    start = text.index(":", end) + 1
    start += len(text[start:]) - len(text[start:].lstrip())
    return text[:start], text[start:]


def inner_members(value: str) -> list[str]:
    """Cut an object's text at its own commas, the slow and obvious way."""
    parts, depth, in_string, begin, at = [], 0, False, 1, 1
    while at < len(value) - 1:
        letter = value[at]
        if in_string:
            at += letter == "\\"
            in_string = letter != '"'
        elif letter == '"':
            in_string = True
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(value[begin:at])
            begin = at + 1
        at += 1
    last = value[begin:-1]
    return [*parts, last] if last.strip() or parts else []


@given(bodies())
def test_all_but_two_fields_are_the_bytes_that_came(made: Made) -> None:
    asked = chat.parse(made.body.encode())
    assert isinstance(asked, ChatRequest), asked
    assert asked.slug == made.slug
    upstream = chat.upstream_body(asked, "their model").decode()
    assert upstream == made.upstream
    assert dict(loads(upstream)) == made.upstream_value
    without = chat.upstream_body(asked, "their model", stored_metadata_only=True).decode()
    dropped = {"metadata"} if asked.metadata is not None and not asked.stores else set()
    assert list(loads(without)) == [pair for pair in loads(upstream) if pair[0] not in dropped]


@given(bodies(), st.data())
def test_no_mutation_of_a_body_makes_an_exception(made: Made, data: st.DataObject) -> None:
    body = bytearray(made.body.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["change", "drop", "double", "cut"])):
            case "change":
                body[at] = data.draw(st.sampled_from(b'"\\{}[],: \x00\xff1eu\xc3'))
            case "drop" if len(body) > 1:
                del body[at]
            case "double":
                body[at:at] = body[at : at + 9]
            case _:
                body = body[: at + 1]
    answered(bytes(body))


@given(st.binary(max_size=60) | st.text('{}[]":,\\umodelstra 019.eE-', max_size=60).map(str.encode))
@example(b'{"model":"\\ud800"}')
@example(b'{"model":"\xed\xa0\x80"}')
@example(b'{"model":"a","metadata":{"\\ud800\\ud800\\udc00":"\\udc00"}}')
def test_no_bytes_make_an_exception(body: bytes) -> None:
    answered(body)


def answered(body: bytes) -> None:
    """Read any bytes: what is accepted is a JSON object and stays one, what is refused has a message."""
    asked = chat.parse(body)
    if isinstance(asked, Invalid):
        assert asked.message
        return
    before = loads(body.decode())
    after = loads(chat.upstream_body(asked, "their model").decode())
    assert [pair for pair in after if pair[0] not in ("model", "stream_options")] == [
        pair for pair in before if pair[0] not in ("model", "stream_options")
    ]
    assert [value for name, value in after if name == "model"] == ["their model"]
    if asked.stream:
        (options,) = [value for name, value in after if name == "stream_options"]
        assert {value for name, value in options if name == "include_usage"} == {True}
