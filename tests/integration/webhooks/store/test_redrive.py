"""Redeliver and redrive on both engines: what comes back, when, and at which rate (contract 2.5 and 5)."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select

from runtime.database.engines import Database
from tests.support.engines import Place
from tests.unit.webhooks import kit
from webhooks.core.deliveries import Attempt, ClaimEnd, Queue, Share, Status, WaitingQueue
from webhooks.core.health import Rule
from webhooks.core.retry import Decision, Delivered, GiveUp, Leave, RetryAt
from webhooks.store import claims, deliveries, receivers, redrive, tables

RULE = Rule()
SWIFT = Rule(redrive_per_s=10_000)
LEASE = timedelta(seconds=30)
TRIED = Attempt(kit.START, 500, None, 12)


class Desk:
    """One workspace's deliveries, moved by hand."""

    def __init__(self, opened: Database) -> None:
        self.database = opened
        self._count = 0

    def keep(self, *delivery_ids: str, status: Status = Status.PENDING, at_s: float = 0) -> None:
        events = [kit.event(self._count + number + 1) for number in range(len(delivery_ids))]
        self._count += len(events)
        drafts = [kit.draft(name, event, status=status) for name, event in zip(delivery_ids, events, strict=True)]
        batch = kit.batch(*events, topic=f"spool/{self._count}")
        self.write(deliveries.enqueue, drafts, [batch], kit.after(at_s))

    def end(self, *delivery_ids: str, decision: Decision, at_s: float = 0) -> None:
        """Settle an attempt at each."""
        shares = [Share("ws", queue, 100) for queue in (Queue.FIRST, Queue.REDRIVEN)]
        found = {one.delivery_id: one for one in self.write(claims.claim, shares, kit.after(at_s), LEASE, SWIFT)}
        ends = [ClaimEnd(found.pop(name), TRIED, decision) for name in delivery_ids]
        assert not found
        self.write(deliveries.finish, ends, kit.after(at_s), RULE)

    def lose(self, *delivery_ids: str, at_s: float = 0) -> None:
        self.keep(*delivery_ids, at_s=at_s)
        self.end(*delivery_ids, decision=GiveUp("answered 503"), at_s=at_s)

    def write(self, work: Any, *arguments: Any, **named: Any) -> Any:
        return self.database.write_now(lambda connection: work(connection, *arguments, **named))

    def due(self) -> dict[str, datetime]:
        """Say when each that is pending may be claimed."""
        column = tables.DELIVERY.c
        query = select(column.id, column.claimable_at).where(tables.PENDING).order_by(column.claimable_at, column.id)
        return {row[0]: row[1] for row in self.database.read_now(lambda connection: connection.execute(query).all())}

    def row(self, delivery_id: str) -> Any:
        query = select(tables.DELIVERY).where(tables.DELIVERY.c.id == delivery_id)
        return self.database.read_now(lambda connection: connection.execute(query).one())

    def queues(self) -> set[Queue]:
        return {one.queue for one in self.database.read_now(claims.waiting)}


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.mark.parametrize("decision", [GiveUp("answered 503"), Delivered()])
def test_redeliver_begins_a_new_run_at_once_with_the_same_bytes(desk: Desk, decision: Decision) -> None:
    desk.keep("one")
    desk.end("one", decision=decision)
    before = desk.row("one")
    assert desk.write(redrive.redeliver, "ws", "one", kit.after(99))
    assert desk.due() == {"one": kit.after(99)}
    row = desk.row("one")
    assert (row.body, row.created_at, row.attempt_count) == (before.body, before.created_at, 1)
    assert (row.run_attempts, row.first_attempt_at, row.settled_at, row.reason) == (0, None, None, None)
    desk.end("one", decision=Delivered(), at_s=100)
    assert (desk.row("one").attempt_count, desk.row("one").status) == (2, "delivered")


def test_redeliver_makes_pending_what_was_not_due(desk: Desk) -> None:
    desk.keep("one", status=Status.NOT_DUE)
    assert desk.write(redrive.redeliver, "ws", "one", kit.after(9))
    assert desk.due() == {"one": kit.after(9)}


def test_redeliver_brings_the_next_attempt_of_a_pending_delivery_to_now(desk: Desk) -> None:
    desk.keep("one")
    desk.end("one", decision=RetryAt(kit.after(600)), at_s=1)
    assert desk.write(redrive.redeliver, "ws", "one", kit.after(9))
    assert desk.due() == {"one": kit.after(9)}
    assert (desk.row("one").run_attempts, desk.row("one").attempt_count) == (0, 1), "a new run"
    desk.end("one", decision=Delivered(), at_s=9)


def test_redeliver_leaves_an_attempt_under_way_alone_until_its_dispatcher_is_gone(desk: Desk) -> None:
    desk.keep("one")
    desk.write(claims.claim, [Share("ws", Queue.FIRST, 1)], kit.START, LEASE, RULE)
    assert desk.write(redrive.redeliver, "ws", "one", kit.after(9))
    assert desk.due() == {"one": kit.after(30)}
    assert desk.write(redrive.redeliver, "ws", "one", kit.after(31))
    assert desk.due() == {"one": kit.after(31)}


def test_redeliver_knows_no_other_labs(desk: Desk) -> None:
    desk.keep("one")
    assert not desk.write(redrive.redeliver, "other", "one", kit.after(9))
    assert not desk.write(redrive.redeliver, "ws", "none", kit.after(9))


def test_redrive_spreads_what_has_ended_at_the_rate_and_leaves_the_delivered(desk: Desk) -> None:
    desk.keep("arrived")
    desk.end("arrived", decision=Delivered())
    desk.lose("a", at_s=1)
    desk.keep("b", status=Status.NOT_DUE, at_s=2)
    desk.lose("c", at_s=3)
    assert desk.write(redrive.redrive, "other", kit.after(100), 2.0) == 0
    assert desk.write(redrive.redrive, "ws", kit.after(100), 2.0) == 3
    assert desk.due() == {"a": kit.after(100), "b": kit.after(100.5), "c": kit.after(101)}
    assert desk.row("arrived").status == "delivered"


def test_redrive_takes_a_window_by_when_deliveries_ended_in_steps_that_keep_the_rate(desk: Desk) -> None:
    for number in range(6):
        desk.lose(f"lost-{number}", at_s=number)
    window = {"since": kit.after(1), "until": kit.after(5)}
    counts = [desk.write(redrive.redrive, "ws", kit.after(100), 1.0, limit=3, **window) for _ in range(3)]
    assert counts == [3, 1, 0]
    assert list(desk.due().items()) == [(f"lost-{number}", kit.after(99 + number)) for number in (1, 2, 3, 4)]


def test_a_probe_that_is_under_way_is_not_begun_a_second_time_by_a_redrive(desk: Desk) -> None:
    for number in range(5):
        desk.lose(f"lost-{number}")
    (probe,) = desk.write(claims.claim, [Share("ws", Queue.PROBE, 1)], kit.after(30), LEASE, RULE)
    desk.write(redrive.redeliver, "ws", "lost-0", kit.after(31))
    assert desk.due() == {"lost-0": kit.after(60)}
    desk.write(deliveries.finish, [ClaimEnd(probe, TRIED, Delivered())], kit.after(40), RULE)
    assert desk.row("lost-0").status == "delivered"
    assert desk.due() == {}


def test_whoever_redrives_has_the_receiver_probed_at_once(desk: Desk) -> None:
    for number in range(5):
        desk.lose(f"lost-{number}")
    assert desk.queues() == {Queue.PROBE}
    desk.write(redrive.redrive, "ws", kit.after(2), 10.0)
    assert desk.database.read_now(receivers.held_and_paced)[0] == {"ws": kit.after(2)}


def test_a_receiver_that_is_back_has_its_last_day_redriven_once(desk: Desk) -> None:
    day = 86_400
    desk.lose("long-ago", at_s=0)
    for number in range(5):
        desk.lose(f"lost-{number}", at_s=day + number)
    assert desk.write(redrive.redrive_returned, kit.after(day + 5), RULE) is None
    desk.keep("new", at_s=day + 6)
    shares = [Share("ws", Queue.PROBE, 1)]
    (probe,) = desk.write(claims.claim, shares, kit.after(day + 40), LEASE, RULE)
    desk.write(deliveries.finish, [ClaimEnd(probe, TRIED, Delivered())], kit.after(day + 40), RULE)
    now = kit.after(day + 41)
    counts = [desk.write(redrive.redrive_returned, now, RULE, 3) for _ in range(3)]
    assert counts == [3, 2, None]
    assert list(desk.due().values()) == [kit.after(day + 41 + number / 10) for number in range(5)]
    assert desk.row("long-ago").status == "dead"


def test_what_fails_again_is_not_redriven_without_end(desk: Desk) -> None:
    for number in range(5):
        desk.lose(f"lost-{number}")
    desk.keep("new")
    (probe,) = desk.write(claims.claim, [Share("ws", Queue.PROBE, 1)], kit.after(30), LEASE, RULE)
    desk.write(deliveries.finish, [ClaimEnd(probe, TRIED, Delivered())], kit.after(30), RULE)
    assert desk.write(redrive.redrive_returned, kit.after(31), SWIFT, 3) == 3
    desk.end("lost-0", "lost-1", "lost-2", decision=GiveUp("again"), at_s=32)
    assert desk.write(redrive.redrive_returned, kit.after(33), SWIFT, 3) == 2
    assert desk.write(redrive.redrive_returned, kit.after(33), SWIFT, 3) is None


def test_a_receiver_that_fails_again_is_held_again_and_what_is_left_waits(desk: Desk) -> None:
    for number in range(8):
        desk.lose(f"lost-{number}")
    (probe,) = desk.write(claims.claim, [Share("ws", Queue.PROBE, 1)], kit.after(30), LEASE, RULE)
    desk.write(deliveries.finish, [ClaimEnd(probe, TRIED, Delivered())], kit.after(30), RULE)
    assert desk.write(redrive.redrive_returned, kit.after(31), SWIFT, 5) == 5
    desk.end(*desk.due(), decision=GiveUp("again"), at_s=32)
    assert desk.write(redrive.redrive_returned, kit.after(33), SWIFT, 5) is None
    assert desk.queues() == {Queue.PROBE}
    (probe,) = desk.write(claims.claim, [Share("ws", Queue.PROBE, 1)], kit.after(62), LEASE, RULE)
    desk.write(deliveries.finish, [ClaimEnd(probe, TRIED, Delivered())], kit.after(62), RULE)
    assert desk.write(redrive.redrive_returned, kit.after(65), SWIFT) == 6


def redriven(desk: Desk, at_s: float, *, rule: Rule = RULE) -> int:
    """Deliver what of the redriven may be claimed now; return how many."""
    found = desk.write(claims.claim, [Share("ws", Queue.REDRIVEN, 100)], kit.after(at_s), LEASE, rule)
    desk.write(deliveries.finish, [ClaimEnd(one, TRIED, Delivered()) for one in found], kit.after(at_s), rule)
    return len(found)


def test_moments_that_passed_unused_bring_no_more_than_the_rate(desk: Desk) -> None:
    desk.keep(*(f"aside-{number:02}" for number in range(60)), status=Status.NOT_DUE)
    assert desk.write(redrive.redrive, "ws", kit.START, 10.0) == 60
    assert [redriven(desk, number / 20) for number in range(20)] == [1, 0] * 10
    hour = 3600.0  # nobody was there, or the receiver was held or disabled
    begun = [redriven(desk, hour + number / 40) for number in range(120)]
    assert begun[:5] == [1, 0, 0, 0, 1]
    assert all(sum(begun[number : number + 40]) <= 10 for number in range(80))
    assert sum(begun) == 30
    assert len(desk.due()) == 20


def test_a_high_rate_is_kept_by_several_at_once(desk: Desk) -> None:
    desk.keep(*(f"aside-{number:02}" for number in range(60)), status=Status.NOT_DUE)
    desk.write(redrive.redrive, "ws", kit.START, 200.0)
    rule = Rule(redrive_per_s=200)
    assert [redriven(desk, 99 + number / 20, rule=rule) for number in range(5)] == [20, 0, 20, 0, 20]


def test_waiting_says_when_the_next_of_the_redriven_may_begin_and_live_deliveries_do_not_wait(desk: Desk) -> None:
    desk.keep("a", "b", status=Status.NOT_DUE)
    desk.write(redrive.redrive, "ws", kit.START, 10.0)
    desk.keep("live", at_s=50)
    assert redriven(desk, 60) == 1
    assert desk.database.read_now(claims.waiting) == [
        WaitingQueue("ws", Queue.FIRST, kit.after(50)),
        WaitingQueue("ws", Queue.REDRIVEN, kit.after(60.1)),
    ]
    desk.end("live", decision=Delivered(), at_s=60)
    assert redriven(desk, 60.1) == 1


def test_what_fails_again_after_a_redrive_is_retried_when_it_is_planned(desk: Desk) -> None:
    desk.lose("one")
    desk.write(redrive.redrive, "ws", kit.after(1), 10.0)
    desk.end("one", decision=RetryAt(kit.after(3)), at_s=2)
    assert desk.database.read_now(claims.waiting) == [WaitingQueue("ws", Queue.RETRY, kit.after(3))]


def test_two_dispatchers_share_one_rate(place: Place) -> None:
    with place.open() as one, place.open() as other:
        desks = [Desk(one), Desk(other)]
        desks[0].keep(*(f"aside-{number:02}" for number in range(40)), status=Status.NOT_DUE)
        desks[0].write(redrive.redrive, "ws", kit.START, 10.0)
        assert sum(redriven(desk, 99 + number / 10) for number in range(20) for desk in desks) == 20


def test_the_probe_is_found_among_the_redriven_too(desk: Desk) -> None:
    for number in range(5):
        desk.lose(f"lost-{number}")
    desk.write(redrive.redrive, "ws", kit.after(2), 10.0)
    (probe,) = desk.write(claims.claim, [Share("ws", Queue.PROBE, 1)], kit.after(40), LEASE, RULE)
    assert (probe.delivery_id, probe.queue) == ("lost-0", Queue.PROBE)
    desk.write(deliveries.finish, [ClaimEnd(probe, TRIED, Leave(refused=True))], kit.after(41), RULE)
    (probe,) = desk.write(claims.claim, [Share("ws", Queue.PROBE, 1)], kit.after(80), LEASE, RULE)
    assert probe.delivery_id == "lost-1"


def succeed(desk: Desk, name: str, at_s: float) -> None:
    """Let the receiver take a new delivery."""
    desk.keep(name, at_s=at_s)
    desk.end(name, decision=Delivered(), at_s=at_s)


def test_one_dead_letter_is_redriven_at_the_next_success_without_any_hold(desk: Desk) -> None:
    desk.lose("one", at_s=19)
    assert desk.write(redrive.redrive_returned, kit.after(20), RULE) is None
    succeed(desk, "good", 24)
    assert desk.write(redrive.redrive_returned, kit.after(25), RULE) == 1
    assert desk.due() == {"one": kit.after(25)}
    assert desk.write(redrive.redrive_returned, kit.after(25), RULE) is None


def test_what_a_receiver_refuses_neither_holds_it_nor_is_redriven_by_itself(desk: Desk) -> None:
    names = [f"refused-{number:02}" for number in range(20)]
    desk.keep(*names)
    desk.end(*names, decision=GiveUp("answered 400", refused=True), at_s=1)
    assert desk.database.read_now(receivers.held_and_paced)[0] == {}
    desk.lose("down", at_s=16)
    succeed(desk, "good", 21)
    assert desk.write(redrive.redrive_returned, kit.after(22), RULE) == 1
    assert list(desk.due()) == ["down"]
    assert desk.write(redrive.redrive, "ws", kit.after(30), 10.0) == 20, "a person may"


def test_no_refused_dead_letter_is_a_probe(desk: Desk) -> None:
    desk.keep("refused")
    desk.end("refused", decision=GiveUp("answered 400", refused=True))
    for number in range(5):
        desk.lose(f"lost-{number}", at_s=1)
    (probe,) = desk.write(claims.claim, [Share("ws", Queue.PROBE, 1)], kit.after(40), LEASE, RULE)
    assert probe.delivery_id == "lost-0"


def test_a_body_that_always_fails_is_redriven_ever_more_rarely_and_for_a_day_at_most(desk: Desk) -> None:
    desk.lose("poison", at_s=0)
    redriven_at = []
    for at_s in range(10, 3 * 86_400, 600):
        succeed(desk, f"good-{at_s}", at_s)
        while desk.write(redrive.redrive_returned, kit.after(at_s), SWIFT):
            redriven_at.append(at_s)
            desk.end("poison", decision=GiveUp("no success within 15 s"), at_s=at_s + 15)
    assert len(redriven_at) < 12
    assert redriven_at[-1] <= 86_400
    assert all(later > 1.5 * early for early, later in pairwise(redriven_at[1:]))
    assert desk.row("poison").first_died_at == kit.START
