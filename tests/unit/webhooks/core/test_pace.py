"""How fast attempts at one receiver may begin."""

from tests.unit.webhooks import kit
from webhooks.core import pace
from webhooks.core.pace import Pace


def test_without_a_bound_nothing_is_counted() -> None:
    unbound = Pace(None)
    for _ in range(1000):
        unbound.begin("a", 0)
    assert (unbound.left(["a"], 0), unbound.free_at_s("a")) == ({}, None)


def test_no_second_holds_more_than_the_bound() -> None:
    two = Pace(2)
    assert two.left(["a", "b"], 0) == {"a": 2, "b": 2}
    two.begin("a", 0)
    assert two.free_at_s("a") is None
    two.begin("a", 0.5)
    assert two.left(["a", "b"], 0.75) == {"a": 0, "b": 2}
    assert two.free_at_s("a") == 1
    assert two.left(["a"], 1) == {"a": 1}
    assert two.left(["a"], 1.5) == {"a": 2}


def test_redriven_deliveries_follow_each_other_at_the_rate() -> None:
    assert pace.spread(kit.START, None, 3, 2.0) == [kit.START, kit.after(0.5), kit.after(1)]


def test_they_come_behind_what_is_planned_already() -> None:
    assert pace.spread(kit.START, kit.after(10), 2, 0.5) == [kit.after(12), kit.after(14)]
    assert pace.spread(kit.START, kit.after(-10), 1, 0.5) == [kit.START]
