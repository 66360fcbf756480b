"""Who gets the next attempts, so that one slow or dead receiver does not slow another lab's deliveries (contract 5).

Each workspace has queues with bounds of their own: retries, the probe, and first attempts, redriven or not, which
share one. A retry therefore never waits behind first attempts that hang, and comes when the retry rule planned it.

The bounds are one dispatcher's: where D share a database, a receiver may see D times as many attempts at once.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from webhooks.core.deliveries import Queue, Share, WaitingQueue

WorkspaceQueue = tuple[str, Queue]
"""A workspace and one of its queues."""

_FIRSTS = (Queue.FIRST, Queue.REDRIVEN)


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """Attempts in flight at once."""

    overall: int = 128
    first_per_receiver: int = 4
    first_per_failing_receiver: int = 1
    """For a receiver whose last attempt failed: hanging receivers must not hold the dispatcher's attempts."""
    retries_per_receiver: int = 8
    overall_to_failing: int = 64
    """For all receivers whose last attempt failed: however many hang, the others have the rest."""


def share(
    waiting: Sequence[WaitingQueue],
    in_flight: Mapping[WorkspaceQueue, int],
    failing: Collection[str],
    limits: AttemptLimits,
    left: Mapping[str, int],
) -> list[Share]:
    """Divide what is free among the queues that are due: retries first, then the least busy, then the longest due.

    `left` says how many attempts the pace lets begin now, for the workspaces that it bounds (`core.pace`).
    """
    free = limits.overall - sum(in_flight.values())
    to_failing = sum(count for (workspace_id, _), count in in_flight.items() if workspace_id in failing)
    free_to_failing = limits.overall_to_failing - to_failing
    paced, busy = dict(left), Counter(in_flight)
    shares = []
    for one in sorted(waiting, key=lambda one: _rank(one, in_flight)):
        count = min(free, _bound(one, failing, limits) - _busy(one, busy))
        count = min(count, paced.get(one.workspace_id, count))
        if one.workspace_id in failing:
            count = min(count, free_to_failing)
        if count <= 0:
            continue
        shares.append(Share(one.workspace_id, one.queue, count))
        busy[one.workspace_id, one.queue] += count
        free -= count
        if one.workspace_id in failing:
            free_to_failing -= count
        if one.workspace_id in paced:
            paced[one.workspace_id] -= count
    return shares


def _rank(one: WaitingQueue, in_flight: Mapping[WorkspaceQueue, int]) -> tuple[object, ...]:
    return (one.queue is not Queue.RETRY, _busy(one, in_flight), one.due_at, one.workspace_id)


def _busy(one: WaitingQueue, begun: Mapping[WorkspaceQueue, int]) -> int:
    """Return how much of the queue's bound is taken."""
    queues = _FIRSTS if one.queue in _FIRSTS else (one.queue,)
    return sum(begun.get((one.workspace_id, queue), 0) for queue in queues)


def _bound(one: WaitingQueue, failing: Collection[str], limits: AttemptLimits) -> int:
    match one.queue:
        case Queue.RETRY:
            return limits.retries_per_receiver
        case Queue.PROBE:
            return 1
        case Queue.FIRST | Queue.REDRIVEN:
            failed = one.workspace_id in failing
            return limits.first_per_failing_receiver if failed else limits.first_per_receiver
