"""Who gets the next attempts."""

from tests.unit.webhooks import kit
from webhooks.core import fairness
from webhooks.core.fairness import Lane, Limits
from webhooks.core.values import Share, Waiting

LIMITS = Limits(overall=10, first_per_receiver=4, first_per_failing_receiver=1, retries_per_receiver=3)


def lane(workspace_id: str, *, retrying: bool = False, due_s: float = 0) -> Waiting:
    return Waiting(workspace_id, retrying, kit.after(due_s))


def test_each_lane_gets_what_its_bound_leaves() -> None:
    waiting = [lane("a"), lane("b"), lane("c"), lane("c", retrying=True)]
    busy: dict[Lane, int] = {("a", False): 3, ("c", False): 1}
    assert fairness.share(waiting, busy, {"c"}, LIMITS) == [
        Share("c", retrying=True, count=3),
        Share("b", retrying=False, count=3),
    ]


def test_the_least_busy_comes_first_then_the_longest_due() -> None:
    waiting = [lane("late", due_s=2), lane("early", due_s=1), lane("busy")]
    limits = Limits(overall=6, first_per_receiver=3, first_per_failing_receiver=1, retries_per_receiver=1)
    shares = fairness.share(waiting, {("busy", False): 1}, (), limits)
    assert shares == [Share("early", retrying=False, count=3), Share("late", retrying=False, count=2)]


def test_nothing_is_shared_beyond_the_overall_bound() -> None:
    assert fairness.share([lane("a")], {("x", False): 10}, (), LIMITS) == []


def test_hanging_receivers_leave_room_for_the_others() -> None:
    hanging = [f"hangs-{number}" for number in range(5)]
    busy: dict[Lane, int] = {(name, False): 1 for name in hanging}
    waiting = [*(lane(name) for name in hanging), lane("well", due_s=9)]
    assert fairness.share(waiting, busy, set(hanging), LIMITS) == [Share("well", retrying=False, count=4)]
