"""What a clock a day ahead has planned is due once the clock is right; nothing else is touched (contract 5)."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from runtime.database.engines import Database
from tests.integration.webhooks.store.test_redrive import Desk
from tests.unit.webhooks import kit
from webhooks.core.deliveries import Queue, Share, WaitingQueue
from webhooks.core.health import Rule
from webhooks.core.retry import RetryAt
from webhooks.policies import Policies
from webhooks.store import claims, receivers, redrive

DAY_S = 86_400.0
LONGEST = timedelta(seconds=Policies().longest_wait_s)
RULE = Rule()


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def brought(desk: Desk, limit: int = redrive.STEP, per_s: float = RULE.redrive_per_s) -> int:
    count: int = desk.write(redrive.bring_forward, kit.START, LONGEST, per_s, limit)
    return count


def waiting(desk: Desk) -> set[WaitingQueue]:
    return set(desk.database.read_now(claims.waiting))


def retried(desk: Desk) -> None:
    desk.keep("one", at_s=DAY_S)
    desk.end("one", decision=RetryAt(kit.after(DAY_S + 5)), at_s=DAY_S)


def claimed(desk: Desk) -> None:
    desk.keep("one", at_s=DAY_S)
    desk.write(claims.claim, [Share("ws", Queue.FIRST, 1)], kit.after(DAY_S), timedelta(seconds=30), RULE)


@pytest.mark.parametrize("planned", [lambda desk: desk.keep("one", at_s=DAY_S), retried, claimed])
def test_an_attempt_planned_a_day_ahead_is_due_and_begins_a_new_run(
    desk: Desk, planned: Callable[[Desk], None]
) -> None:
    planned(desk)
    assert brought(desk) == 1
    assert waiting(desk) == {WaitingQueue("ws", Queue.FIRST, kit.START)}
    row = desk.row("one")
    assert (row.first_attempt_at, row.run_attempts, row.claim) == (None, 0, None)
    assert brought(desk) == 0


def test_redriven_deliveries_keep_their_rate_and_their_order(desk: Desk) -> None:
    names = [f"{number:02}" for number in range(20)]
    desk.lose(*names, at_s=DAY_S)
    desk.write(redrive.redrive, "ws", kit.after(DAY_S + 1), RULE.redrive_per_s)
    while brought(desk, 6) >= 6:
        pass
    step = timedelta(seconds=1) / RULE.redrive_per_s
    assert desk.due() == {name: kit.START + step * number for number, name in enumerate(names)}


def test_what_a_rule_allows_is_left_alone(desk: Desk) -> None:
    desk.keep("first")
    desk.end("first", decision=RetryAt(kit.after(LONGEST.total_seconds())))
    desk.lose(*(f"{number:02}" for number in range(60)))
    desk.write(redrive.redrive, "ws", kit.START, 1.0)
    before = desk.due()
    assert max(before.values()) == kit.after(59)
    assert brought(desk, per_s=1.0) == 0
    assert desk.due() == before


def test_the_probe_of_a_held_receiver_comes_too(desk: Desk) -> None:
    desk.lose(*(str(number) for number in range(RULE.dead_before_hold)), at_s=DAY_S)
    assert desk.database.read_now(receivers.held_and_paced)[0] == {"ws": RULE.next_probe(kit.after(DAY_S))}
    brought(desk)
    assert desk.database.read_now(receivers.held_and_paced)[0] == {"ws": kit.START}
