"""Corrections: what may be corrected, by how much, and what the correction's event holds."""

from datetime import datetime, timedelta

import pytest

from control.core.refusals import InvalidError, NotFoundError, RefusalError
from control.flow import corrections
from runtime import ids
from schemas.usage import Kind, Outcome, Producer, Tokens, UsageEvent, UsageSource
from tests.unit.control.fakes import NOW, FakeCorrections

KEY = "01KDTAK00000000000000000AA"


def event(**fields: object) -> UsageEvent:
    given: dict[str, object] = {
        "idempotency_key": KEY,
        "request_id": "9c5b94b1-35ad-49bb-b118-8e8fc24abf80",
        "timestamp": NOW - timedelta(days=3),
        "workspace_id": "workspace",
        "group_id": "group",
        "charged_groups": ("group", "root"),
        "external_entity_id": "customer",
        "api_key_prefix": "sky_abcdefghijkl",
        "model_slug": "lab/model",
        "request_metadata": {"order": "4711"},
        "tokens": Tokens(input_tokens=10, output_tokens=5, cached_input_tokens=4),
        "usage_source": UsageSource.ESTIMATED,
        "outcome": Outcome.CLIENT_DISCONNECTED,
        "stream": True,
        "latency_ms": 12,
        "first_byte_ms": 3,
        "producer": Producer(instance="spool", sequence=7),
    }
    return UsageEvent.model_validate(given | fields)


def correct(
    kept: FakeCorrections,
    input_tokens: int = 0,
    output_tokens: int = 0,
    *,
    of: str = KEY,
    reason: str = "miscounted",
    key: str | None = None,
) -> UsageEvent:
    def now() -> datetime:
        assert kept.locked, "who waits over midnight would correct an earlier day"
        return NOW

    return corrections.correct(
        kept, now, event_key=of, input_tokens=input_tokens, output_tokens=output_tokens, reason=reason, key=key
    )


def test_a_correction_is_an_event_of_its_own_beside_what_it_corrects() -> None:
    corrected = event()
    made = correct(FakeCorrections(corrected), -3, 2)
    assert (made.kind, made.corrects, made.reason, made.timestamp) == (Kind.CORRECTION, KEY, "miscounted", NOW)
    assert made.tokens == Tokens(input_tokens=-3, output_tokens=2, cached_input_tokens=0)
    assert made.charged_groups == ()
    assert (made.latency_ms, made.first_byte_ms) == (None, None)
    own = {"idempotency_key", "request_id", "timestamp", "tokens", "charged_groups", "kind", "corrects", "reason"}
    own |= {"latency_ms", "first_byte_ms", "producer"}
    assert made.model_dump(exclude=own) == corrected.model_dump(exclude=own)
    assert made.idempotency_key != corrected.idempotency_key
    assert made.request_id != corrected.request_id


def test_corrections_add_up_and_never_take_more_than_there_is() -> None:
    kept = FakeCorrections(event())
    correct(kept, -6, 0)
    correct(kept, 1, -5)
    with pytest.raises(InvalidError, match="input: the event counts 5 now, -6 would make it negative"):
        correct(kept, -6, 0)
    with pytest.raises(InvalidError, match="output: the event counts 0 now"):
        correct(kept, 0, -1)
    correct(kept, -5, 1)
    assert len(kept.kept) == 3


def test_an_unknown_event_and_a_correction_cannot_be_corrected() -> None:
    of_another = event(kind=Kind.CORRECTION, corrects="01KDTAK00000000000000000BB", reason="x")
    with pytest.raises(InvalidError, match="01KDTAK00000000000000000BB"):
        correct(FakeCorrections(of_another), 1, 0)
    with pytest.raises(NotFoundError, match="'nothing'"):
        correct(FakeCorrections(event()), 1, 0, of="nothing")


def test_a_key_corrects_once_and_only_what_it_corrected_first() -> None:
    kept = FakeCorrections(event(), event(idempotency_key="01KDTAK00000000000000000CC"))
    key = ids.mint(NOW)
    made = correct(kept, -10, 1, key=key)
    assert made.idempotency_key == key
    assert correct(kept, -10, 1, key=key) == made, "the event counts nothing any more that could be taken back again"
    for other in (
        {"input_tokens": -9, "output_tokens": 1},
        {"input_tokens": -10, "output_tokens": 2},
        {"input_tokens": -10, "output_tokens": 1, "reason": "another"},
        {"input_tokens": -10, "output_tokens": 1, "of": "01KDTAK00000000000000000CC"},
    ):
        with pytest.raises(InvalidError, match=f"key: {key} is that of another correction, of {KEY}"):
            correct(kept, **other, key=key)
    assert kept.kept == [made]


def test_a_key_is_found_again_however_old_it_is_but_begins_nothing_then() -> None:
    kept = FakeCorrections(event())
    old = ids.mint(NOW - timedelta(days=1, milliseconds=1))
    with pytest.raises(InvalidError, match=f"no correction has {old}, and a new one's is made within a day of it"):
        correct(kept, 1, key=old)
    assert kept.kept == []
    assert correct(kept, 1, key=ids.mint(NOW - timedelta(days=1))).timestamp == NOW


@pytest.mark.parametrize("key", ["", "x", "\udcff" * 26, KEY.lower(), "8" + "Z" * 25, "7" + "Z" * 25])
def test_a_key_is_a_ulid_of_about_now(key: str) -> None:
    kept = FakeCorrections(event())
    with pytest.raises(InvalidError, match=r"^key: "):
        correct(kept, 1, key=key)
    assert kept.kept == []


def test_the_key_of_another_event_is_refused() -> None:
    other = event(idempotency_key=ids.mint(NOW))
    with pytest.raises(InvalidError, match="is that of another event"):
        correct(FakeCorrections(event(), other), 1, key=other.idempotency_key)


MOST = 10**9


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "problem"),
    [
        (0, 0, "at least one of them must not be 0"),
        (MOST + 1, 0, "input: -1000000000 to 1000000000 is allowed"),
        (-MOST - 1, 0, "input: -1000000000 to 1000000000 is allowed"),
        (0, MOST + 1, "output: -1000000000 to 1000000000 is allowed"),
        (0, -MOST - 1, "output: -1000000000 to 1000000000 is allowed"),
    ],
)
def test_a_change_is_not_zero_and_not_absurd(input_tokens: int, output_tokens: int, problem: str) -> None:
    """The event counts enough for each of these changes, so that the bound alone refuses them."""
    kept = FakeCorrections(event(tokens=Tokens(input_tokens=3 * MOST, output_tokens=3 * MOST)))
    with pytest.raises(InvalidError, match=problem):
        correct(kept, input_tokens, output_tokens)
    assert not kept.kept
    assert correct(kept, MOST, -MOST).tokens == Tokens(input_tokens=MOST, output_tokens=-MOST)


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "nul\x00", "lone \udcff", "x" * 501])
def test_a_reason_is_one_printable_line(reason: str) -> None:
    with pytest.raises(RefusalError, match="reason"):
        correct(FakeCorrections(event()), 1, 0, reason=reason)


def test_a_reason_may_be_just_so_long() -> None:
    assert correct(FakeCorrections(event()), 1, reason="x" * 500).reason == "x" * 500
