"""Metering's tables on both engines: one transaction or nothing, a clock that never runs behind, figures that agree."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import select, text

from domain.positions import PositionLostError
from domain.sources import EventBatch
from metering.core.sums import Counter, Totals
from metering.store import events as ledger_events
from metering.store import insert, positions, tables, transaction
from runtime.database.engines import METADATA, Database
from schemas.usage import Outcome, RouteName, UsageEvent, UsageSource
from tests.unit.metering.factories import LANE, NOON, SPOOL, HandClock, batch, correction, event, key

TODAY = NOON.date()
TOMORROW = NOON + timedelta(days=1)
TABLES = [
    tables.USAGE_DAILY,
    tables.LIMIT_DAILY,
    positions.METERING_POSITION,
    ledger_events.USAGE_EVENT,
    ledger_events.METERING_DUPLICATE,
]


def apply(opened: Database, read: EventBatch, clock: HandClock | None = None) -> Totals:
    return opened.write_now(lambda connection: transaction.apply(connection, read, clock or HandClock()))


def contents(opened: Database) -> dict[str, list[Any]]:
    """Return every row of every table."""
    return opened.read_now(
        lambda connection: {table.name: list(connection.execute(select(table))) for table in TABLES},
    )


@contextmanager
def before_statements(opened: Database, act: Callable[[Any, str], None]) -> Iterator[None]:
    def listener(_conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        act(cursor, statement)

    sqlalchemy.event.listen(opened.engine, "before_cursor_execute", listener)
    try:
        yield
    finally:
        sqlalchemy.event.remove(opened.engine, "before_cursor_execute", listener)


def every_field_set(sequence: int) -> UsageEvent:
    return event(
        sequence,
        timestamp=NOON + timedelta(milliseconds=123),
        request_metadata={"team": 'ä "quoted" \u2028', "": ""},
        usage_source=UsageSource.ESTIMATED,
        outcome=Outcome.CLIENT_DISCONNECTED,
        route=RouteName.RESPONSES,
        stream=True,
        charged_groups=("group-a", "parent", "root"),
    )


@pytest.mark.parametrize("general", [False, True])
def test_the_ledger_keeps_every_field(opened: Database, monkeypatch: pytest.MonkeyPatch, general: bool) -> None:
    if general:
        monkeypatch.setattr(insert, "_insert_all", lambda *_: False)
    events = [every_field_set(1), correction(2), event(3, timestamp=TOMORROW, latency_ms=None)]
    apply(opened, batch(events))

    with opened.engine.connect() as connection:
        assert [ledger_events.find(connection, each.idempotency_key) for each in events] == events
        assert ledger_events.find(connection, key(99)) is None
        assert ledger_events.find(connection, "no ULID") is None


def test_both_ways_to_insert_leave_the_same_bytes(opened: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"idempotency_key", "recorded_at"}
    columns = ", ".join({column.name for column in ledger_events.USAGE_EVENT.columns} - own)
    query = f"SELECT recorded_at, {columns} FROM usage_event ORDER BY recorded_at"
    clock = HandClock(NOON + timedelta(microseconds=1))
    apply(opened, batch([every_field_set(1)]), clock)
    monkeypatch.setattr(insert, "_insert_all", lambda *_: False)
    apply(opened, batch([every_field_set(1).model_copy(update={"idempotency_key": key(2)})], 2), clock)

    (recorded, *first), (later, *second) = opened.read_now(lambda connection: connection.exec_driver_sql(query).all())
    assert first == second
    assert (type(recorded), len(str(recorded))) == (type(later), len(str(later)))


def test_a_lost_comparison_rolls_back_everything(opened: Database) -> None:
    apply(opened, batch([event(1)]))
    before = contents(opened)

    def move_it_first(cursor: Any, statement: str) -> None:
        if statement.startswith("UPDATE metering_position"):
            cursor.execute("UPDATE metering_position SET next_offset = 77")

    with before_statements(opened, move_it_first), pytest.raises(PositionLostError):
        apply(opened, batch([event(2), event(3, number=1)], 2))
    assert contents(opened) == before


def test_two_workers_that_begin_a_partition_at_once_do_not_both_win(opened: Database) -> None:
    def begin_it_first(cursor: Any, statement: str) -> None:
        if statement.startswith("INSERT INTO metering_position"):
            cursor.execute(
                "INSERT INTO metering_position (topic, partition, next_offset, recorded_at)"
                f" VALUES ('{SPOOL}', 0, 5, '2025-03-01 00:00:00.000000')"
            )

    with before_statements(opened, begin_it_first), pytest.raises(PositionLostError):
        apply(opened, batch([event(1)]))
    assert not any(contents(opened).values())


def test_a_crash_among_the_ledgers_rows_leaves_nothing_and_redelivery_counts_once(
    opened: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = batch([event(1), event(2)])

    def die(*_: Any, **__: Any) -> tuple[Any, ...]:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(insert, "_row", die)
        apply(opened, read)
    assert not any(contents(opened).values())

    assert [usage.requests for usage in apply(opened, read).daily] == [2]


@pytest.mark.parametrize("table", ["usage_daily", "limit_daily", "metering_position"])
def test_a_crash_at_any_statement_leaves_nothing_and_redelivery_counts_once(opened: Database, table: str) -> None:
    read = batch([event(1, charged_groups=("group-a", "root"))])

    def die(_cursor: Any, statement: str) -> None:
        if statement.startswith(f"INSERT INTO {table}"):
            raise KeyboardInterrupt

    with before_statements(opened, die), pytest.raises(KeyboardInterrupt):
        apply(opened, read)
    assert not any(contents(opened).values())

    totals = apply(opened, read)
    assert [usage.requests for usage in totals.daily] == [1]
    assert [total.requests for total in totals.limits] == [1, 1]


def test_a_thousand_events_take_few_statements(opened: Database) -> None:
    statements: list[str] = []
    groups = [f"group-{number}" for number in range(40)]
    events = [
        event(number, group_id=groups[number % 40], charged_groups=(groups[number % 40], "root"))
        for number in range(1, 1001)
    ]
    with before_statements(opened, lambda _, statement: statements.append(statement)):
        totals = apply(opened, batch(events))

    assert len(statements) <= 10
    assert (len(totals.daily), len(totals.limits)) == (40, 41)
    assert sum(usage.requests for usage in totals.daily) == 1000


def test_a_thousand_events_that_name_thousands_of_counters_are_counted_and_named_again(opened: Database) -> None:
    chain = tuple(f"ancestor-{level}" for level in range(4))
    events = [
        event(number, group_id=f"group-{number}", charged_groups=(f"group-{number}", *(f"{a}-{number}" for a in chain)))
        for number in range(1, 1001)
    ]
    first = apply(opened, batch(events))
    again = apply(opened, batch(events))

    assert (len(first.daily), len(first.limits)) == (1000, 5000)
    assert set(again.limits) == set(first.limits)


def test_the_ledgers_clock_never_runs_behind(opened: Database) -> None:
    clock = HandClock(NOON)
    apply(opened, batch([event(1)]), clock)
    clock.advance(seconds=-30)
    apply(opened, batch([event(2)], topic="another spool"), clock)
    clock.advance(seconds=60)
    apply(opened, batch([event(3)], 2), clock)

    query = select(ledger_events.USAGE_EVENT.c.recorded_at).order_by(ledger_events.USAGE_EVENT.c.sequence)
    recorded: list[datetime] = list(opened.read_now(lambda connection: connection.execute(query).scalars()))
    tick = timedelta(microseconds=1)
    assert recorded == [NOON, NOON + tick, NOON + tick + timedelta(seconds=30)]  # half the speed: a minute has passed


def test_one_transaction_has_one_clock_value(opened: Database) -> None:
    moments = iter([NOON, NOON + timedelta(seconds=1)])
    opened.write_now(
        lambda connection: transaction.apply(connection, batch([event(1), event(2)]), lambda: next(moments))
    )

    query = select(ledger_events.USAGE_EVENT.c.recorded_at).distinct()
    assert opened.read_now(lambda connection: connection.execute(query).scalars().all()) == [NOON]


def test_ledger_and_daily_usage_tally_to_the_same(opened: Database) -> None:
    apply(opened, batch([event(1), event(2, group_id="group-b", tokens=(1, 2, 0)), correction(3)]))
    apply(opened, batch([event(4, workspace_id="workspace-b", group_id="group-c"), event(5, timestamp=TOMORROW)], 4))
    apply(opened, batch([event(9, number=1, instance="replayed")], topic="again"))

    expected = (
        ledger_events.LedgerTally("workspace-a", TODAY, 2, 11, 7, 1, -3, -1),
        ledger_events.LedgerTally("workspace-a", TOMORROW.date(), 1, 10, 5, 0, 0, 0),
        ledger_events.LedgerTally("workspace-b", TODAY, 1, 10, 5, 0, 0, 0),
    )
    with opened.engine.connect() as connection:
        for tallies in (ledger_events.tallies, transaction.tallies):
            assert tallies(connection, TODAY, TOMORROW.date()) == expected
            assert tallies(connection, TODAY, TODAY) == (expected[0], expected[2])


def gaps(opened: Database, day: datetime = NOON) -> list[tuple[str, int, int]]:
    found = opened.read_now(lambda connection: ledger_events.gaps(connection, day.date(), day.date()))
    return [(gap.instance, gap.first, gap.last) for gap in found]


def test_numbers_that_never_came_are_gaps(opened: Database) -> None:
    apply(opened, batch([event(2), event(3), event(5), event(9), event(1, instance="proxy-b")]))

    assert gaps(opened) == [("proxy-a", 1, 1), ("proxy-a", 4, 4), ("proxy-a", 6, 8)]
    assert gaps(opened, TOMORROW) == []


def test_numbers_of_dropped_duplicates_are_no_gaps(opened: Database) -> None:
    apply(opened, batch([event(1), event(2, number=1), event(3)]))
    apply(opened, batch([event(1, number=3, instance="proxy-b"), event(2, instance="proxy-b")], topic="spool-b"))

    assert gaps(opened) == []
    assert len(contents(opened)["metering_duplicate"]) == 2


def test_redelivered_numbers_are_not_kept_as_duplicates(opened: Database) -> None:
    apply(opened, batch([event(1)]))
    apply(opened, batch([event(1)], topic="replayed under other offsets"))

    assert contents(opened)["metering_duplicate"] == []


def test_a_gap_between_two_days_belongs_to_the_later_one(opened: Database) -> None:
    apply(opened, batch([event(1), event(2), event(5, timestamp=TOMORROW), event(7, timestamp=TOMORROW), event(6)]))

    assert gaps(opened, TOMORROW) == [("proxy-a", 3, 4)], "6 was admitted a day earlier, and is there"


def test_current_totals_come_by_lane_with_every_position(opened: Database) -> None:
    apply(opened, batch([event(1), event(2, timestamp=TOMORROW)], lane=SPOOL))
    apply(opened, batch([event(1, number=3, group_id="group-b")], topic="spool-b", lane="spool-b"))
    found, moved = opened.read_now(lambda connection: transaction.current(connection, [TODAY]))

    assert [(one.lane, one.position, [total.counter.group_id for total in one.limits]) for one in found] == [
        (SPOOL, 3, ["group-a"]),
        ("spool-b", 2, ["group-b"]),
    ]
    assert moved == {SPOOL: 3, "spool-b": 2}
    assert opened.read_now(lambda connection: transaction.current(connection, []))[0] == ()


def test_what_a_data_directory_has_counted_is_told_by_instance(opened: Database) -> None:
    apply(opened, batch([event(1), event(2)], topic="spool/a"))
    apply(opened, batch([event(1, number=3)], topic="corrections"))

    assert opened.read_now(transaction.counted_through) == {"a": 2}


@pytest.mark.parametrize("table", ["usage_daily", "limit_daily"])
def test_what_each_batch_changes_is_in_no_index(postgres: Database, table: str) -> None:
    """Else PostgreSQL could not change a row in its page, and each change would be a change of every index."""
    indexed = postgres.read_now(
        lambda connection: (
            connection.execute(
                text(
                    "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)"
                    " WHERE indrelid = CAST(:name AS regclass)"
                ),
                {"name": table},
            )
            .scalars()
            .all()
        )
    )
    assert set(indexed) == {"day", "lane", "group_id", "model_slug"}


def test_totals_of_days_come_in_pages_in_the_order_of_counters(
    opened: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "PAGE", 2)
    days = (NOON - timedelta(days=1), NOON, TOMORROW)
    events = [event(1 + at, group_id=f"group-{at % 3}", timestamp=days[at // 3]) for at in range(9)]
    apply(opened, batch(events[:4]))
    apply(opened, batch(events[4:], topic="spool-b"))
    apply(opened, batch([event(1, number=50, group_id="group-1")], topic="spool-c"))

    def daily(after: Counter) -> list[Counter]:
        found = opened.read_now(lambda connection: transaction.daily_behind(connection, after, TODAY))
        return [Counter(one.day, one.group_id, one.model_slug) for one in found]

    def limits(after: Counter) -> list[tuple[str, list[Counter], int]]:
        found = opened.read_now(lambda connection: transaction.limits_behind(connection, after, TODAY))
        return [(one.lane, [total.counter for total in one.limits], one.position) for one in found]

    first, second, third = (Counter(TODAY, f"group-{number}", event(1).model_slug) for number in range(3))
    assert daily(Counter(TODAY, "", "")) == [first, second]
    assert daily(second) == [third]
    assert daily(third) == [], "the day after is not asked for"
    assert len(daily(Counter(TODAY - timedelta(days=1), "group-1", "z"))) == 2
    assert limits(Counter(TODAY, "", "")) == [
        (LANE, [first], 5),
        ("spool-b/0", [second], 6),
        ("spool-c/0", [second], 2),
    ]
    assert limits(second) == [("spool-b/0", [third], 6)]
    assert limits(third) == []


def test_every_table_is_registered_for_the_migrations() -> None:
    assert {table.name for table in TABLES} <= set(METADATA.tables)
