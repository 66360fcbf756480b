"""Corrections: what may be corrected, by how much, and what the correction's event holds."""

from datetime import datetime, timedelta

import pytest

from control.core.refusals import InvalidError, NotFoundError, RefusalError
from control.flow import corrections
from schemas.usage import Kind, Outcome, Producer, Tokens, UsageDraft, UsageEvent, UsageSource
from tests.unit.control.fakes import NOW

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


class FakeCorrections:
    def __init__(self, *events: UsageEvent) -> None:
        self.events = {one.idempotency_key: one for one in events}
        self.kept: list[UsageEvent] = []
        self.locked = False

    def lock(self) -> None:
        self.locked = True

    def find(self, idempotency_key: str) -> UsageEvent | None:
        return self.events.get(idempotency_key)

    def corrected(self, idempotency_key: str) -> Tokens:
        assert self.locked
        tokens = [one.tokens for one in self.kept if one.corrects == idempotency_key]
        return Tokens(
            input_tokens=sum(one.input_tokens for one in tokens), output_tokens=sum(one.output_tokens for one in tokens)
        )

    def put(self, draft: UsageDraft, now: datetime) -> UsageEvent:
        producer = Producer(instance="database", sequence=len(self.kept) + 1)
        self.kept.append(UsageEvent(**dict(draft), producer=producer))
        return self.kept[-1]


def correct(
    kept: FakeCorrections, input_tokens: int = 0, output_tokens: int = 0, key: str = KEY, reason: str = "miscounted"
) -> UsageEvent:
    return corrections.correct(
        kept, NOW, event_key=key, input_tokens=input_tokens, output_tokens=output_tokens, reason=reason
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
        correct(FakeCorrections(event()), 1, 0, key="nothing")


@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(0, 0), (2**53 + 1, 0), (0, -(2**53) - 1)])
def test_a_change_is_not_zero_and_not_absurd(input_tokens: int, output_tokens: int) -> None:
    kept = FakeCorrections(event())
    with pytest.raises(InvalidError):
        correct(kept, input_tokens, output_tokens)
    assert not kept.kept


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "nul\x00", "lone \udcff", "x" * 501])
def test_a_reason_is_one_printable_line(reason: str) -> None:
    with pytest.raises(RefusalError, match="reason"):
        correct(FakeCorrections(event()), 1, 0, reason=reason)
