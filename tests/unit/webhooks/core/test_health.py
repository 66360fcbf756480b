"""When a receiver is spared, probed and given its dead letters again (contract 5)."""

from dataclasses import replace

import pytest

from tests.unit.webhooks import kit
from tests.unit.webhooks.kit import WELL
from webhooks.core import health
from webhooks.core.health import Health, Rule
from webhooks.core.retry import Delivered, GiveUp, Leave, Release, RetryAt

RULE = Rule()
LOST = GiveUp("answered 503")


def after_dead(count: int, known: Health = WELL) -> Health:
    for number in range(count):
        known = health.after(known, LOST, kit.after(number), RULE)
    return known


def test_five_dead_deliveries_in_a_row_hold_a_receiver() -> None:
    assert after_dead(4) == Health(dead_in_row=4, owes_redrive=True)
    assert after_dead(5) == Health(dead_in_row=5, probe_at=kit.after(4 + 30), owes_redrive=True)


def test_more_of_them_do_not_put_the_probe_off() -> None:
    assert after_dead(50).probe_at == after_dead(5).probe_at


def test_what_ends_no_delivery_changes_nothing() -> None:
    for decision in (RetryAt(kit.START), Release(), Leave()):
        assert health.after(after_dead(5), decision, kit.after(99), RULE) == after_dead(5)


def test_probes_that_are_refused_in_a_row_are_counted_until_one_meets_something_else() -> None:
    held = after_dead(5)
    refused = health.after(health.after(held, Leave(refused=True), kit.after(9), RULE), LOST, kit.after(9), RULE)
    twice = health.after(refused, Leave(refused=True), kit.after(9), RULE)
    assert (refused.refused_in_row, twice.refused_in_row) == (1, 2)
    assert health.after(twice, Leave(), kit.after(9), RULE).refused_in_row == 0
    assert health.after(twice, Delivered(), kit.after(9), RULE).refused_in_row == 0


@pytest.mark.parametrize(("per_s", "at_once", "step_s"), [(0.5, 1, 2), (10, 1, 0.1), (19, 1, 1 / 19), (1000, 100, 0.1)])
def test_redriven_deliveries_are_claimed_in_even_steps(per_s: float, at_once: int, step_s: float) -> None:
    rule = Rule(redrive_per_s=per_s)
    assert rule.redriven_at_once == at_once
    assert rule.next_redriven(kit.START, at_once) == kit.after(step_s)


def test_what_a_receiver_refuses_changes_nothing() -> None:
    for known in (WELL, after_dead(4), after_dead(5)):
        assert health.after(known, GiveUp("answered 400", refused=True), kit.after(9), RULE) == known


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_success_has_what_died_redriven_after_a_hold_or_not(count: int) -> None:
    back = health.after(after_dead(count), Delivered(), kit.after(99), RULE)
    assert back == Health(redrive_at=kit.after(99))


def test_a_success_after_which_nothing_died_redrives_nothing() -> None:
    assert health.after(WELL, Delivered(), kit.after(99), RULE) == WELL


@pytest.mark.parametrize(("dead_for_s", "rests_s"), [(0, 0), (20, 20), (3600, 3600)])
def test_what_dies_again_rests_as_long_as_it_has_been_dead(dead_for_s: float, rests_s: float) -> None:
    assert RULE.redrive_after(kit.START, kit.after(dead_for_s)) == kit.after(dead_for_s + rests_s)


def test_that_may_be_switched_off() -> None:
    assert health.after(after_dead(5), Delivered(), kit.after(9), replace(RULE, redrives=False)) == WELL


def test_what_is_left_over_when_it_fails_again_is_redriven_when_it_is_back_for_good() -> None:
    back = health.after(after_dead(5), Delivered(), kit.after(50), RULE)
    assert after_dead(5, back).redrive_at == kit.after(50), "not forgotten"
    again = health.after(after_dead(5, back), Delivered(), kit.after(90_000), RULE)
    assert again == Health(redrive_at=kit.after(90_000))


def test_failed_first_attempts_of_a_long_schedule_hold_a_receiver_and_owe_nothing() -> None:
    known = WELL
    for number in range(5):
        known = health.after(known, RetryAt(kit.after(5), counts=True), kit.after(number), RULE)
    assert known == Health(dead_in_row=5, probe_at=kit.after(34))
    assert health.after(known, Delivered(), kit.after(99), RULE) == WELL
