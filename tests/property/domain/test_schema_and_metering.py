"""What the published JSON Schema and the program in docs/finance.md refuse, metering refuses, and nothing else."""

import json
import re
from types import SimpleNamespace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from domain import validity
from domain.ledger_days import EVERY
from schemas import publish
from schemas.topics import USAGE_EVENTS
from tests.architecture import sources
from tests.unit.metering.factories import NOON, correction, event

SCHEMA = jsonschema.Draft202012Validator(json.loads(publish.render()[f"{USAGE_EVENTS}.json"]))
(_CODE,) = re.findall(
    r"^```python\n(.*?)^```", (sources.ROOT / "docs/finance.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
PROGRAM: dict[str, Any] = {"__name__": "finance"}
exec(compile(_CODE, "docs/finance.md", "exec"), PROGRAM)

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
_TIMES = st.builds(
    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}{}".format,
    st.integers(0, 9999),
    st.integers(0, 13),
    st.integers(0, 32),
    st.integers(0, 25),
    st.integers(0, 61),
    st.integers(0, 61),
    st.sampled_from(["", ".5", ".123456789", "."]),
    st.sampled_from(["Z", "z", "+00:00", "-23:59", "+24:00", "", "+0100"]),
)
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([10**9, 10**9 + 1, -(10**9), -(10**9) - 1, 2**63 - 1, 2**63, 10**40]),
    st.floats(),
    _TEXTS,
    _TIMES,
    st.sampled_from(["usage", "correction", "complete", "provider", "x" * 64, "x" * 65, "x" * 256, "a\0", str(NOON)]),
    st.lists(_TEXTS, max_size=18),
    st.dictionaries(_TEXTS, _TEXTS, max_size=2),
)
_NAMES = [*json.loads(event(1).model_dump_json()), "newer"]
_INNER = [("tokens", name) for name in ("inputTokens", "outputTokens", "cachedInputTokens", "newer")]
_INNER += [("producer", name) for name in ("instance", "sequence", "newer")]


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """Return an event or a correction of which one or two members are gone or something else."""
    body = json.loads((event(1) if draw(st.booleans()) else correction(2)).model_dump_json())
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.one_of(st.sampled_from([(name,) for name in _NAMES]), st.sampled_from(_INNER)))
        inner = body
        for name in path[:-1]:
            inner = inner.get(name)
        if not isinstance(inner, dict):
            continue
        if draw(st.integers(0, 3)):
            inner[path[-1]] = draw(_VALUES)
        else:
            inner.pop(path[-1], None)
    return json.dumps(body).encode()


def is_counted(value: bytes) -> bool:
    try:
        validity.read(value, EVERY)
    except validity.UnreadableError:
        return False
    return True


def is_booked(value: bytes) -> bool:
    book = SimpleNamespace(execute=lambda *_: None)
    record = SimpleNamespace(value=value, topic=PROGRAM["EVENTS"], key=b"root")
    try:
        PROGRAM["keep"](book, record, SCHEMA)
    except PROGRAM["JUNK"]:
        return False
    return True


@given(bent())
def test_what_one_refuses_the_other_refuses(value: bytes) -> None:
    assert is_booked(value) == is_counted(value)


@given(st.binary(max_size=40))
def test_junk_is_neither_counted_nor_booked(value: bytes) -> None:
    assert not is_counted(value)
    assert not is_booked(value)
