"""Who gets the next attempts."""

from tests.unit.webhooks import kit
from webhooks.core import fairness
from webhooks.core.deliveries import Queue, Share, WaitingQueue
from webhooks.core.fairness import AttemptLimits, WorkspaceQueue

LIMITS = AttemptLimits(overall=10, first_per_receiver=4, first_per_failing_receiver=1, retries_per_receiver=3)


def queue(workspace_id: str, which: Queue = Queue.FIRST, *, due_s: float = 0) -> WaitingQueue:
    return WaitingQueue(workspace_id, which, kit.after(due_s))


def test_each_lane_gets_what_its_bound_leaves() -> None:
    waiting = [queue("a"), queue("b"), queue("c"), queue("c", Queue.RETRY)]
    busy: dict[WorkspaceQueue, int] = {("a", Queue.FIRST): 3, ("c", Queue.FIRST): 1}
    assert fairness.share(waiting, busy, {"c"}, LIMITS, {}) == [Share("c", Queue.RETRY, 3), Share("b", Queue.FIRST, 3)]


def test_the_least_busy_comes_first_then_the_longest_due() -> None:
    waiting = [queue("late", due_s=2), queue("early", due_s=1), queue("busy")]
    limits = AttemptLimits(overall=6, first_per_receiver=3, first_per_failing_receiver=1, retries_per_receiver=1)
    shares = fairness.share(waiting, {("busy", Queue.FIRST): 1}, (), limits, {})
    assert shares == [Share("early", Queue.FIRST, 3), Share("late", Queue.FIRST, 2)]


def test_nothing_is_shared_beyond_the_overall_bound() -> None:
    assert fairness.share([queue("a")], {("x", Queue.FIRST): 10}, (), LIMITS, {}) == []


def test_hanging_receivers_leave_room_for_the_others() -> None:
    hanging = [f"hangs-{number}" for number in range(5)]
    busy: dict[WorkspaceQueue, int] = {(name, Queue.FIRST): 1 for name in hanging}
    waiting = [*(queue(name) for name in hanging), queue("well", due_s=9)]
    assert fairness.share(waiting, busy, set(hanging), LIMITS, {}) == [Share("well", Queue.FIRST, 4)]


def test_however_many_receivers_hang_their_retries_leave_room_for_the_others() -> None:
    hanging = [f"hangs-{number}" for number in range(50)]
    limits = AttemptLimits(overall=10, first_per_receiver=4, retries_per_receiver=3, overall_to_failing=6)
    waiting = [*(queue(name, Queue.RETRY) for name in hanging), queue("well", due_s=9)]
    busy: dict[WorkspaceQueue, int] = {(hanging[0], Queue.RETRY): 3}
    shares = fairness.share(waiting, busy, set(hanging), limits, {})
    assert sum(share.count for share in shares if share.workspace_id in hanging) == 3
    assert Share("well", Queue.FIRST, 4) in shares


def test_a_receiver_is_probed_once_at_a_time() -> None:
    assert fairness.share([queue("a", Queue.PROBE)], {}, {"a"}, LIMITS, {}) == [Share("a", Queue.PROBE, 1)]
    assert fairness.share([queue("a", Queue.PROBE)], {("a", Queue.PROBE): 1}, {"a"}, LIMITS, {}) == []


def test_first_attempts_share_one_bound_whether_redriven_or_not() -> None:
    waiting = [queue("a", Queue.REDRIVEN), queue("a", due_s=1)]
    assert fairness.share(waiting, {("a", Queue.FIRST): 1}, (), LIMITS, {}) == [Share("a", Queue.REDRIVEN, 3)]
    assert fairness.share(waiting[1:], {("a", Queue.REDRIVEN): 3}, (), LIMITS, {}) == [Share("a", Queue.FIRST, 1)]
    assert fairness.share(waiting, {("a", Queue.REDRIVEN): 1}, {"a"}, LIMITS, {}) == []


def test_the_pace_bounds_all_lanes_of_a_receiver_together() -> None:
    waiting = [queue("a"), queue("a", Queue.RETRY), queue("b"), queue("c")]
    shares = fairness.share(waiting, {}, (), AttemptLimits(), {"a": 9, "b": 0})
    assert shares == [Share("a", Queue.RETRY, 8), Share("a", Queue.FIRST, 1), Share("c", Queue.FIRST, 4)]
