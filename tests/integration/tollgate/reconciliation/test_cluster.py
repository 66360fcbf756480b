"""What reconcile finds on a real Kafka and PostgreSQL: topic, ledger, daily usage, deliveries, proxies' reports."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from control.store import published
from metering.store.events import Gap
from schemas.spool import SpoolFigures
from schemas.topics import USAGE_EVENTS
from schemas.usage import Kind, Tokens
from tests.integration.tollgate.reconciliation import cluster_desk
from tests.integration.tollgate.reconciliation.cluster_desk import NOW, TODAY, ClusterDesk, events, row
from tollgate.reconciliation.accounts import AccountSums, Figures
from tollgate.reconciliation.compare import ReconcileError
from webhooks.core.deliveries import Status

YESTERDAY = TODAY - timedelta(days=1)
TEN = Figures(10, 100, 50)


async def test_what_everybody_has_agrees(cluster: ClusterDesk) -> None:
    await cluster.pass_on([*events(10), *events(3, "b", workspace_id="other")])
    await cluster.pass_on(events(2, "c", at=NOW - timedelta(days=1)))
    report = await cluster.reconcile(YESTERDAY)
    assert report.agrees, report
    assert (report.served, report.passed, report.waiting, report.gaps) == (True, True, 0, ())
    assert [(line.workspace_id, line.day, line.ledger.requests) for line in report.lines] == [
        ("other", TODAY, 3),
        ("ws", YESTERDAY, 2),
        ("ws", TODAY, 10),
    ]
    line = report.lines[-1]
    assert line.topic == line.ledger == line.daily == TEN
    assert (line.unpublished, line.untaken) == (Figures(), AccountSums())
    assert line.deliveries == dict.fromkeys(Status, AccountSums()) | {Status.DELIVERED: AccountSums(10, 100, 50)}


async def test_a_record_that_is_there_twice_is_no_difference(cluster: ClusterDesk) -> None:
    once = events(6)
    await cluster.publish(once)
    await cluster.pass_on(once)
    await cluster.publish(once[2:4])
    await cluster.count()
    await cluster.take()
    report = await cluster.reconcile()
    assert report.agrees, report
    assert report.lines[0].topic == Figures(6, 60, 30)


@pytest.mark.parametrize(
    ("damage", "topic", "daily", "delivery"),
    [
        ("DELETE FROM usage_event WHERE sequence = 10", Figures(1, 10, 5), Figures(1, 10, 5), AccountSums(1, 10, 5)),
        ("UPDATE usage_event SET input_tokens = 9 WHERE sequence = 2", Figures(0, 1), Figures(0, 1), AccountSums(0, 1)),
        (
            "UPDATE usage_daily SET requests = requests + 1 WHERE group_id = 'group 1 of ws'",
            Figures(),
            Figures(1),
            AccountSums(),
        ),
        (
            "DELETE FROM delivery_event WHERE idempotency_key IN (SELECT min(idempotency_key) FROM delivery_event)",
            Figures(),
            Figures(),
            AccountSums(-1, -10, -5),
        ),
    ],
)
async def test_a_difference_is_found_and_told(
    cluster: ClusterDesk, damage: str, topic: Figures, daily: Figures, delivery: AccountSums
) -> None:
    await cluster.pass_on(events(10))
    cluster.execute(damage)
    report = await cluster.reconcile()
    (line,) = report.lines
    assert not report.agrees
    assert (line.topic_difference, line.daily_difference, line.delivery_difference) == (topic, daily, delivery)


async def test_an_event_that_metering_never_counted_is_a_gap_too(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(4))
    cluster.execute("DELETE FROM usage_event WHERE sequence = 4")
    cluster.execute("DELETE FROM usage_daily WHERE group_id = 'group 4 of ws'")
    report = await cluster.reconcile()
    (line,) = report.lines
    assert (line.topic_difference, line.daily_difference) == (Figures(1, 10, 5), Figures())
    assert (line.delivery_difference, report.gaps) == (AccountSums(1, 10, 5), (Gap("a", 4, 4),))


async def test_a_position_beyond_the_logs_end_is_one_line(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(20))
    cluster.execute("UPDATE metering_position SET next_offset = 1000 WHERE partition = 0")
    with pytest.raises(ReconcileError, match=r"has passed offset 1000 of .*, partition 0, but its"):
        await cluster.reconcile()


async def test_a_ledger_that_holds_what_the_topic_never_had_differs(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(10))
    cluster.execute("UPDATE usage_event SET workspace_id = 'stolen' WHERE sequence = 4")
    stolen, own = (await cluster.reconcile()).lines
    assert (stolen.topic_difference, own.topic_difference) == (Figures(-1, -10, -5), Figures(1, 10, 5))


async def test_what_a_proxy_has_not_published_is_told_and_no_difference(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(10))
    cluster.reports.rows = [row("a", 10, 12, (2, 20, 10))]
    report = await cluster.reconcile()
    (line,) = report.lines
    assert report.agrees, report
    assert (line.unpublished, line.untaken, line.ledger) == (Figures(2, 20, 10), AccountSums(2, 20, 10), TEN)


async def test_what_was_published_after_the_report_counts_once(cluster: ClusterDesk) -> None:
    """Sent before the report was made but acknowledged after it, or sent since: both are in the topic by now."""
    await cluster.pass_on(events(10))
    await cluster.publish(events(2, first=11))
    cluster.reports.rows = [row("a", 10, 13, (3, 30, 15))]
    await cluster.count()
    await cluster.take()
    report = await cluster.reconcile()
    (line,) = report.lines
    assert report.agrees, report
    assert (line.unpublished, line.topic, line.ledger) == (Figures(1, 10, 5), Figures(12, 120, 60), line.topic)


async def test_an_instance_that_nobody_reports_is_named_unless_it_is_ignored(cluster: ClusterDesk) -> None:
    await cluster.pass_on([*events(2), *events(2, "lost"), *events(1, "gone")])
    cluster.reports.rows = [row("a", 2, 2)]
    with pytest.raises(ReconcileError, match="reports gone, lost, which"):
        await cluster.reconcile()
    with pytest.raises(ReconcileError, match="reports gone, which"):
        await cluster.reconcile(ignored=["lost"])
    report = await cluster.reconcile(ignored=["lost", "gone"])
    assert report.agrees, report
    assert report.lines[0].ledger.requests == 5


async def test_an_instance_that_begins_behind_the_cut_is_left_to_the_next_run(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(4))
    loop = asyncio.get_running_loop()

    async def one_more_proxy() -> None:
        await cluster.publish(events(2, "new", first=2))
        await cluster.count()

    cluster.reports.meanwhile = lambda: asyncio.run_coroutine_threadsafe(one_more_proxy(), loop).result(10)
    report = await cluster.reconcile(wait_s=0)
    (line,) = report.lines
    assert report.gaps == ()
    assert line.agrees
    assert (line.topic, line.ledger, line.untaken) == (Figures(6, 60, 30), line.topic, AccountSums(2, 20, 10))


async def test_intake_may_be_behind_metering_or_ahead_of_it(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(10))
    await cluster.publish(events(10, first=11))
    await cluster.count()
    (line,) = (await cluster.reconcile(wait_s=0)).lines
    assert line.agrees
    assert (line.ledger.requests, line.untaken) == (20, AccountSums(10, 100, 50))
    await cluster.take()
    await cluster.publish(events(5, first=21))
    await cluster.take()
    report = await cluster.reconcile(wait_s=0)
    (line,) = report.lines
    assert line.agrees
    assert (line.ledger.requests, line.topic, line.untaken) == (20, line.ledger, AccountSums(-5, -50, -25))
    assert (report.passed, report.waiting, report.agrees) == (False, 5, False)


async def test_it_waits_until_both_have_passed_the_cut(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(4))
    await cluster.publish(events(6, first=5))
    cluster.reports.rows = [row("a", 10, 10)]
    loop, turns = asyncio.get_running_loop(), [cluster.count, cluster.take]

    def wait(_: float) -> None:
        if turns:
            asyncio.run_coroutine_threadsafe(turns.pop(0)(), loop).result(10)

    report = await cluster.reconcile(pause=wait)
    assert (report.passed, report.agrees, report.lines[0].ledger) == (True, True, TEN)


async def test_corrections_are_apart_and_their_producer_needs_no_proxy(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(3))
    outbox = cluster.correct(cluster_desk.first_key(cluster), -2, 1)
    report = await cluster.reconcile()
    assert report.agrees, report
    assert report.lines[0].unpublished == Figures(0, 0, 0, 1, -2, 1)
    await cluster.publish([outbox])
    cluster.place.write(partial(published.advance, name=published.CORRECTIONS, value=1))
    await cluster.count()
    await cluster.take()
    report = await cluster.reconcile()
    (line,) = report.lines
    assert report.agrees, report
    assert line.topic == line.ledger == line.daily == Figures(3, 30, 15, 1, -2, 1)
    assert line.unpublished == Figures()
    cluster.correct(cluster_desk.first_key(cluster), 5, 0)
    cluster.place.write(partial(published.advance, name=published.CORRECTIONS, value=2))
    report = await cluster.reconcile()
    assert report.gaps == (Gap(outbox.producer.instance, 2, 2),), "it was sent, and the ledger lacks it"


async def test_a_late_event_belongs_to_its_own_day(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(2))
    await cluster.pass_on(events(1, first=3, at=NOW - timedelta(days=3)))
    day = TODAY - timedelta(days=3)
    (line,) = (await cluster.reconcile(day, day)).lines
    assert line.agrees
    assert (line.day, line.topic) == (day, Figures(1, 10, 5))


async def test_an_unreadable_record_is_apart_and_named(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(2))
    await cluster.write((b"group 1", b'{"idempotencyKey": 1}'), (b"group 1", b"\xff"), (b"group 1", None))
    await cluster.pass_on(events(2, first=3))
    report = await cluster.reconcile()
    assert report.agrees, report
    assert report.topic is not None
    assert report.topic.unreadable == len(report.topic.named) == 3
    first = report.topic.named[0]
    assert (first.offset, first.reason) == (0, "idempotencyKey: Input should be a valid string")


async def test_records_that_are_gone_make_a_day_expired_only_where_they_are_missed(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(10))
    everything = {
        TopicPartition(cluster.kafka.name(USAGE_EVENTS), number): RecordsToDelete(before_offset=-1)
        for number in range(cluster_desk.PARTITIONS)
    }
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.kafka.bootstrap)
    await admin.start()
    await admin.delete_records(everything)
    await admin.close()
    await cluster.pass_on(events(4, first=11))
    await cluster.pass_on(events(2, "b", workspace_id="other"))
    other, own = (await cluster.reconcile()).lines
    assert (own.topic, own.topic_difference, own.agrees) == (None, None, True)
    assert other.topic == Figures(2, 20, 10)


async def test_days_past_the_retentions_are_not_compared(cluster: ClusterDesk) -> None:
    ages = (35, 34, 0)
    await cluster.pass_on([event for age in ages for event in events(1, f"{age}", at=NOW - timedelta(days=age))])
    cluster.execute(f"DELETE FROM delivery_event WHERE day <= '{TODAY - timedelta(days=35)}'")
    report = await cluster.reconcile(TODAY - timedelta(days=200), TODAY)
    assert report.agrees, report
    assert report.period.expired_to == TODAY - timedelta(days=100)
    assert [(line.topic is None, line.deliveries is None) for line in report.lines] == [
        (True, True),
        (False, False),
        (False, False),
    ]


async def test_the_upstreams_account_is_paired(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(4))
    loop = asyncio.get_running_loop()
    later = [lambda: cluster.publish(events(1, first=5)), cluster.count]

    def wait(_: float) -> None:
        if later:
            asyncio.run_coroutine_threadsafe(later.pop(0)(), loop).result(10)

    account = cluster.account(1, 2, 3, 5, 6)
    report = await cluster.reconcile(account=account, pause=wait, late_s=2)
    assert report.upstream is not None
    assert (report.upstream.agreeing, report.upstream.later) == (3, 1), "the fifth came while it was waited for"
    assert [request.request_id for request in report.upstream.missing_in_ledger.requests] == ["request-6"]
    assert [request.request_id for request in report.upstream.missing_at_upstream.requests] == ["request-4"]


async def test_without_the_topic_or_without_kafka_it_is_one_line(cluster: ClusterDesk) -> None:
    cluster.kafka = cluster.kafka.__class__(cluster.kafka.bootstrap, "nothing-is-here.")
    with pytest.raises(ReconcileError, match="is not there: run `tollgate migrate`"):
        await cluster.reconcile()
    cluster.kafka = cluster.kafka.__class__("127.0.0.1:1", "")
    with pytest.raises(ReconcileError, match=r"127\.0\.0\.1:1"):
        await cluster.reconcile()


Work = Callable[[], Any]


async def test_it_finds_no_difference_while_load_goes_on(cluster: ClusterDesk) -> None:
    made = events(50)
    await cluster.publish(made)

    async def load() -> None:
        while len(made) < 4000:
            some = events(50, first=len(made) + 1)
            made.extend(some)
            await cluster.publish(some)

    async def work(take: Work) -> None:
        while True:
            await take()

    def ask() -> list[SpoolFigures]:
        end = len(made)
        return [row("a", end - 50, end, (50, 500, 250))]

    cluster.reports.ask = ask  # type: ignore[method-assign]
    workers = [asyncio.create_task(work(take)) for take in (cluster.count, cluster.take)]
    loading = asyncio.create_task(load())
    compared = []
    try:
        while not loading.done():
            report = await cluster.reconcile(pause=time.sleep)
            assert report.agrees, report
            compared += [line.ledger.requests for line in report.lines]
    finally:
        for task in (*workers, loading):
            task.cancel()
        for ended in await asyncio.gather(*workers, loading, return_exceptions=True):
            assert ended is None or isinstance(ended, asyncio.CancelledError), ended
    assert compared == sorted(compared)
    assert len(set(compared)) > 2, "it ran while there was load"


def test_a_correction_is_not_negative_usage() -> None:
    (one,) = events(1, kind=Kind.CORRECTION, tokens=Tokens(input_tokens=-1, output_tokens=0))
    assert Figures.of(one) == Figures(0, 0, 0, 1, -1, 0)
