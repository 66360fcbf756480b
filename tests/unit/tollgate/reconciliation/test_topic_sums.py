"""How the records of the topic are summed up: each event once, by its own day, up to two positions."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from domain import ledger_days
from schemas.usage import Kind
from tests.unit.metering.factories import NOON, event
from tollgate.reconciliation import topic_sums
from tollgate.reconciliation.accounts import AccountSums, Figures, Period, UnreadableRecord, WorkspaceDay
from tollgate.reconciliation.topic_sums import TopicSums

DAY = NOON.date()
BEFORE = DAY - timedelta(days=1)
PLACE = ("workspace-a", DAY)
TO_END = {0: 100, 1: 100}


@dataclass(frozen=True)
class Made:
    partition: int
    offset: int
    value: bytes | None


def record(offset: int, key: str = "", partition: int = 0, **fields: Any) -> Made:
    made = event(1, idempotency_key=key or f"key {partition} {offset}", **fields)
    return Made(partition, offset, made.model_dump_json().encode())


@dataclass(frozen=True)
class Found:
    figures: dict[WorkspaceDay, Figures]
    lag: dict[WorkspaceDay, AccountSums]
    unreadable: int
    named: list[UnreadableRecord]


def summed(*batches: list[Made], counted: dict[int, int] = TO_END, taken: dict[int, int] = TO_END) -> Found:
    with TopicSums(Period(BEFORE, DAY, DAY), counted, taken, ledger_days.EVERY) as made:
        for batch in batches:
            made.take(batch)
        return Found(*made.sums(), made.unreadable, made.named)


def test_events_are_summed_by_workspace_and_their_own_day() -> None:
    late = NOON - timedelta(days=1)
    found = summed([record(0), record(1, timestamp=late), record(2, workspace_id="other")], [record(0, partition=1)])
    places = {PLACE: Figures(2, 20, 10), ("workspace-a", BEFORE): Figures(1, 10, 5), ("other", DAY): Figures(1, 10, 5)}
    assert (found.figures, found.lag) == (places, {})


def test_corrections_are_apart_and_signed() -> None:
    found = summed([record(0), record(1, kind=Kind.CORRECTION, tokens=(-3, 2, 0))])
    assert found.figures == {PLACE: Figures(1, 10, 5, 1, -3, 2)}


def test_an_event_that_is_there_twice_counts_once_also_over_partitions() -> None:
    found = summed([record(0, "one"), record(1, "one")], [record(5, "one"), record(0, "one", partition=1)])
    assert found.figures == {PLACE: Figures(1, 10, 5)}


@pytest.mark.parametrize("day", [NOON + timedelta(days=1), NOON - timedelta(days=2)])
def test_other_days_are_left_out(day: datetime) -> None:
    assert summed([record(0, timestamp=day)]).figures == {}


def test_what_lies_between_the_two_positions_is_the_lag() -> None:
    records = [record(number) for number in range(5)]
    behind, ahead = summed(records, counted={0: 4}, taken={0: 1}), summed(records, counted={0: 2}, taken={0: 5})
    assert (behind.figures, behind.lag) == ({PLACE: Figures(4, 40, 20)}, {PLACE: AccountSums(3, 30, 15)})
    assert (ahead.figures, ahead.lag) == ({PLACE: Figures(2, 20, 10)}, {PLACE: AccountSums(-3, -30, -15)})


def test_a_second_record_behind_a_position_changes_nothing() -> None:
    records = [record(0, "one"), record(1, "two"), record(2, "one")]
    found = summed(records, counted={0: 3}, taken={0: 2})
    assert (found.figures, found.lag) == ({PLACE: Figures(2, 20, 10)}, {})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "it has no value"),
        (b"\xff", "Invalid JSON: "),
        (b"[]", "Input should be an object"),
        (b"{}", "idempotencyKey: Field required"),
        (record(0).value.replace(b'"inputTokens":10', b'"inputTokens":-1'), "Value error, a usage event's"),  # type: ignore[union-attr]
    ],
)
def test_what_is_no_usage_event_is_counted_apart_and_named(value: bytes | None, reason: str) -> None:
    found = summed([record(0), Made(0, 1, value), Made(1, 100, value)])
    assert found.figures == {PLACE: Figures(1, 10, 5)}
    assert found.unreadable == 1, "one of them lies behind metering's position"
    (named,) = found.named
    assert named[:2] == UnreadableRecord(0, 1, "")[:2]
    assert named.reason.startswith(reason)
    assert "\n" not in named.reason


def test_only_the_first_of_many_unreadable_records_are_named() -> None:
    found = summed([Made(0, number, None) for number in range(topic_sums.NAMED + 1)], counted={0: 1000})
    assert (found.unreadable, len(found.named)) == (topic_sums.NAMED + 1, topic_sums.NAMED)
