"""Numbers that a proxy calls acknowledged and the ledger lacks: gaps, and the day that each belongs to."""

from datetime import timedelta

from metering.store.events import Gap
from runtime import ids
from tests.integration.tollgate.reconciliation.cluster_desk import NOW, TODAY, ClusterDesk, events, row

YESTERDAY = TODAY - timedelta(days=1)


async def test_a_number_that_the_proxy_calls_acknowledged_and_the_ledger_lacks_is_a_gap(cluster: ClusterDesk) -> None:
    both = events(10), events(5, "b")
    await cluster.pass_on([event for some in both for event in some if event.producer.sequence not in {3, 4}])
    report = await cluster.reconcile()
    assert not report.agrees
    assert report.gaps == (Gap("a", 3, 4), Gap("b", 3, 4))
    assert report.lines[0].agrees, "every account lacks it"
    cluster.reports.rows = [row("a", 12, 12), row("b", 3, 5, (2, 20, 10))]
    report = await cluster.reconcile()
    assert report.gaps == (Gap("a", 3, 4), Gap("a", 11, 12), Gap("b", 3, 3)), "b's fourth may be on its way"


async def test_a_tail_that_is_lost_is_a_gap_of_the_instances_last_day(cluster: ClusterDesk) -> None:
    at = NOW - timedelta(days=2)
    await cluster.pass_on([*events(3, "a", at=at), *events(3, "b", at=at)])
    cluster.reports.rows = [row("a", 10, 10), row("b", 3, 3)]
    report = await cluster.reconcile(at.date(), at.date())
    assert (report.gaps, report.agrees) == ((Gap("a", 4, 10),), False), "a said that the topic had ten"
    assert report.lines[0].agrees, "every account lacks them"
    assert (await cluster.reconcile(YESTERDAY, YESTERDAY)).gaps == ()
    assert (await cluster.reconcile()).gaps == (Gap("a", 4, 10),), "today asks after every number"

    await cluster.pass_on(events(1, "a", first=11, at=NOW - timedelta(days=1)))
    assert (await cluster.reconcile(at.date(), at.date())).gaps == ()
    assert (await cluster.reconcile(YESTERDAY, YESTERDAY)).gaps == (Gap("a", 4, 10),), "before the number that came"


async def test_an_instance_of_which_nothing_came_misses_it_on_the_day_it_was_made(cluster: ClusterDesk) -> None:
    instance = ids.mint(NOW - timedelta(days=1))
    await cluster.pass_on(events(3))
    cluster.reports.rows.append(row(instance, 2, 2))
    assert (await cluster.reconcile(YESTERDAY, YESTERDAY)).gaps == (Gap(instance, 1, 2),)
    two_days_ago = YESTERDAY - timedelta(days=1)
    assert (await cluster.reconcile(two_days_ago, two_days_ago)).gaps == ()
