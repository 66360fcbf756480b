"""What reconcile finds in spools, ledger, daily usage and deliveries."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from ulid import ULID

from domain.sources import EventBatch
from metering.store.events import Gap
from proxy.spool import file as spool_file
from proxy.spool import segments
from schemas.usage import UsageDraft
from tests.integration.proxy.spool.kit import damage
from tests.integration.tollgate.reconciliation.desk import TODAY, Desk, days_ago, draft, numbered
from tollgate import installation
from tollgate.reconciliation.accounts import AccountSums, Figures, Report
from tollgate.reconciliation.compare import ReconcileError
from webhooks.core.deliveries import Status

THREE = Figures(3, 30, 15)
Turn = Callable[[], Coroutine[Any, Any, None]]


async def test_what_everybody_has_passed_agrees(desk: Desk) -> None:
    await desk.pass_on(*numbered(3), draft(4, workspace_id="other"), draft(5, at=days_ago(1)))
    report = desk.reconcile(TODAY - timedelta(days=1), TODAY)
    assert report.agrees
    assert (report.served, report.passed, report.waiting, report.in_flight, report.gaps) == (False, True, 0, 0, ())
    assert [(line.workspace_id, line.day, line.ledger.requests) for line in report.lines] == [
        ("other", TODAY, 1),
        ("ws", TODAY - timedelta(days=1), 1),
        ("ws", TODAY, 3),
    ]
    line = report.lines[-1]
    assert (line.ledger, line.daily, line.unpublished, line.untaken) == (THREE, THREE, Figures(), AccountSums())
    assert line.deliveries == dict.fromkeys(Status, AccountSums()) | {Status.DELIVERED: AccountSums(3, 30, 15)}


async def test_only_the_days_asked_for_are_compared(desk: Desk) -> None:
    await desk.pass_on(draft(1), draft(2, at=days_ago(2)))
    (line,) = desk.reconcile().lines
    assert (line.day, line.ledger.requests) == (TODAY, 1)
    assert desk.reconcile(TODAY - timedelta(days=1), TODAY - timedelta(days=1)).lines == ()


async def test_each_status_of_a_delivery_counts(desk: Desk) -> None:
    for number, status in enumerate(Status):
        await desk.put(draft(number))
        await desk.count()
        await desk.take(status=status)
    (line,) = desk.reconcile().lines
    assert line.agrees
    assert line.deliveries == dict.fromkeys(Status, AccountSums(1, 10, 5))


@pytest.mark.parametrize(
    ("damage", "daily", "delivery"),
    [
        ("DELETE FROM usage_event WHERE sequence = 2", Figures(1, 10, 5), AccountSums(1, 10, 5)),
        ("UPDATE usage_event SET input_tokens = 11 WHERE sequence = 2", Figures(0, -1, 0), AccountSums(0, -1, 0)),
        ("UPDATE usage_daily SET requests = 4", Figures(1, 0, 0), AccountSums()),
        ("UPDATE usage_daily SET corrected_output_tokens = -2", Figures(0, 0, 0, 0, 0, -2), AccountSums()),
        ("DELETE FROM usage_daily", Figures(-3, -30, -15), AccountSums()),
        ("DELETE FROM delivery_event WHERE rowid = 1", Figures(), AccountSums(-1, -10, -5)),
        ("UPDATE delivery_event SET output_tokens = 6 WHERE rowid = 1", Figures(), AccountSums(0, 0, 1)),
    ],
)
async def test_a_difference_is_found_and_told(desk: Desk, damage: str, daily: Figures, delivery: AccountSums) -> None:
    await desk.pass_on(*numbered(3))
    desk.execute(damage)
    report = desk.reconcile()
    (line,) = report.lines
    assert not report.agrees
    assert (line.daily_difference, line.delivery_difference) == (daily, delivery)


async def test_a_lost_event_is_a_gap_wherever_it_lies(desk: Desk) -> None:
    await desk.pass_on(*numbered(5))
    instance = desk.spool.instance
    for sequence, gaps in ((1, [(1, 1)]), (3, [(1, 1), (3, 3)]), (5, [(1, 1), (3, 3), (5, 5)])):
        desk.execute(f"DELETE FROM usage_event WHERE sequence = {sequence}")
        desk.execute("DELETE FROM usage_daily")
        assert desk.reconcile().gaps == tuple(Gap(instance, *gap) for gap in gaps)


async def test_an_event_that_came_twice_is_no_gap_and_no_difference(desk: Desk) -> None:
    once = draft(1)
    await desk.pass_on(once, once, draft(2))
    report = desk.reconcile()
    assert report.agrees
    assert report.lines[0].ledger.requests == 2


async def test_without_a_server_what_waits_in_the_spool_is_told_and_no_difference(desk: Desk) -> None:
    await desk.pass_on(draft(1))
    await desk.put(draft(2), draft(3))
    report = desk.reconcile()
    (line,) = report.lines
    assert report.agrees
    assert (report.passed, report.waiting) == (False, 2)
    assert (line.ledger.requests, line.unpublished, line.untaken) == (1, Figures(2, 20, 10), AccountSums(2, 20, 10))


async def test_one_reader_may_have_come_further_than_the_other(desk: Desk) -> None:
    await desk.put(*numbered(4))
    await desk.count(3)
    await desk.take(1)
    report = desk.reconcile()
    (line,) = report.lines
    assert report.agrees
    assert (report.waiting, line.unpublished.requests, line.untaken.events) == (3, 1, 3)
    await desk.take()
    report = desk.reconcile()
    (line,) = report.lines
    assert report.agrees
    assert (report.waiting, line.unpublished.requests, line.untaken.events) == (1, 1, 0)


async def test_a_row_lost_from_the_spool_before_it_was_read_is_a_gap(desk: Desk) -> None:
    await desk.put(*numbered(6))
    await desk.count(1)
    await desk.take(1)
    damage(desk.spool.file.path, 3, 5)
    report = desk.reconcile()
    assert not report.agrees
    assert report.gaps == (Gap(desk.spool.instance, 3, 3), Gap(desk.spool.instance, 5, 5))


async def beside_a_server(desk: Desk, *turns: Turn) -> Report:
    """Reconcile while a server runs, which takes one turn each time that reconcile waits."""
    loop, left = asyncio.get_running_loop(), list(turns)

    def wait(_: float) -> None:
        if left:
            asyncio.run_coroutine_threadsafe(left.pop(0)(), loop).result(10)

    with installation.locked(desk.place.folder):
        return await asyncio.to_thread(desk.reconcile, pause=wait)


async def test_what_comes_behind_the_cut_is_in_no_figure(desk: Desk) -> None:
    await desk.put(*numbered(2))

    async def more_comes() -> None:
        await desk.pass_on(draft(3))

    report = await beside_a_server(desk, more_comes)
    (line,) = report.lines
    assert (report.served, report.passed, report.agrees) == (True, True, True)
    assert line.ledger == line.daily == Figures(2, 20, 10)
    assert line.deliveries is not None
    assert line.deliveries[Status.DELIVERED] == AccountSums(2, 20, 10)


async def test_a_view_with_intake_ahead_is_taken_again(desk: Desk) -> None:
    await desk.pass_on(draft(1))
    await desk.put(draft(2))

    async def both_pass() -> None:
        await desk.put(draft(3))
        await desk.count(1)
        await desk.take()

    report = await beside_a_server(desk, both_pass, desk.count)
    (line,) = report.lines
    assert report.agrees
    assert line.ledger == line.daily == Figures(2, 20, 10)
    assert line.deliveries is not None
    assert line.deliveries[Status.DELIVERED] == AccountSums(2, 20, 10)


async def test_a_server_that_does_not_pass_the_cut_is_no_agreement(desk: Desk) -> None:
    await desk.pass_on(draft(1))
    await desk.put(draft(2))
    with installation.locked(desk.place.folder):
        report = desk.reconcile(wait_s=0)
    assert (report.served, report.passed, report.waiting, report.agrees) == (True, False, 1, False)
    assert report.lines[0].agrees


async def test_metering_that_stands_still_behind_intake_is_an_error(desk: Desk) -> None:
    await desk.pass_on(draft(1))
    await desk.put(draft(2))
    batch = await desk.spool.file.read(2, 1)
    desk.enqueue(batch)
    newest = desk.spool.file.segments.newest
    os.truncate(newest, next(segments.records(newest)).end)
    with installation.locked(desk.place.folder), pytest.raises(ReconcileError, match="try again"):
        desk.reconcile(pause=lambda _: None)


@pytest.mark.parametrize(("age_days", "gaps"), [(101, []), (99, [(1, 6)])])
async def test_the_first_numbers_of_an_instance_may_be_past_retention(
    desk: Desk, age_days: int, gaps: list[tuple[int, int]]
) -> None:
    instance = str(ULID.from_datetime(days_ago(age_days)))
    events = tuple(spool_file.numbered(one, instance, number) for number, one in enumerate(numbered(2), 7))
    desk.apply(EventBatch(f"spool/{instance}", 0, "spool", 7, 9, events))
    assert [(gap.first, gap.last) for gap in desk.reconcile().gaps] == gaps


async def test_a_spool_that_was_drained_and_removed_is_compared_as_far_as_it_was_counted(desk: Desk) -> None:
    gone = EventBatch("spool/gone", 0, "spool", 1, 3, tuple(spool_file.numbered(one, "gone", n) for n, one in two()))
    desk.apply(gone)
    desk.enqueue(gone)
    await desk.pass_on(draft(3))
    report = desk.reconcile()
    assert report.agrees
    assert report.lines[0].ledger.requests == 3


def two() -> list[tuple[int, UsageDraft]]:
    return list(enumerate(numbered(2), 1))


async def test_corrections_are_rows_of_their_own(desk: Desk) -> None:
    event = draft(1)
    await desk.pass_on(event)
    desk.correct(event.idempotency_key, -4, 2)
    report = desk.reconcile()
    (line,) = report.lines
    assert report.agrees
    assert (report.waiting, line.unpublished, line.untaken) == (1, Figures(0, 0, 0, 1, -4, 2), AccountSums(1, -4, 2))
    batch = await desk.corrections_batch()
    desk.apply(batch)
    desk.enqueue(batch)
    report = desk.reconcile()
    (line,) = report.lines
    assert report.agrees
    assert (report.waiting, line.ledger) == (0, Figures(1, 10, 5, 1, -4, 2))
    assert line.deliveries is not None
    assert line.deliveries[Status.DELIVERED] == AccountSums(2, 6, 7)
    desk.execute("UPDATE usage_daily SET corrections = 0")
    assert desk.reconcile().lines[0].daily_difference == Figures(0, 0, 0, -1, 0, 0)
    desk.execute("DELETE FROM usage_event WHERE kind = 'correction'")
    assert [(gap.first, gap.last) for gap in desk.reconcile().gaps] == [(1, 1)]


async def test_days_past_retention_are_not_compared(desk: Desk) -> None:
    await desk.pass_on(*(draft(number, at=days_ago(number)) for number in (99, 35, 34, 0)))
    desk.execute("DELETE FROM delivery_event WHERE rowid <= 2")
    report = desk.reconcile(days_ago(200).date(), TODAY)
    assert report.agrees
    assert report.period.expired_to == days_ago(100).date()
    assert [(line.day, line.deliveries is None) for line in report.lines] == [
        (days_ago(99).date(), True),
        (days_ago(35).date(), True),
        (days_ago(34).date(), False),
        (TODAY, False),
    ]
    everything = desk.reconcile(days_ago(300).date(), days_ago(200).date())
    assert (everything.agrees, everything.lines, everything.period.expired_to) == (True, (), days_ago(200).date())


async def test_a_request_left_in_flight_is_told(desk: Desk) -> None:
    desk.in_flight("request-1")
    report = desk.reconcile()
    assert (report.in_flight, report.agrees) == (1, True)
