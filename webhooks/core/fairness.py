"""Who gets the next attempts, so that one slow or dead receiver does not slow another lab's deliveries (spec 5).

Never looks at more than what waits and what is in flight: both are handed in.

Each workspace has two lanes with bounds of their own: first attempts and retries. A retry therefore never waits behind
first attempts that hang, and comes when the retry rule planned it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from webhooks.core.values import Share, Waiting

Lane = tuple[str, bool]
"""A workspace and whether it is its lane of retries."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Attempts in flight at once."""

    overall: int = 128
    first_per_receiver: int = 4
    first_per_failing_receiver: int = 1
    """For a receiver whose last attempt failed: hanging receivers must not hold the dispatcher's attempts."""
    retries_per_receiver: int = 8


def share(
    waiting: Sequence[Waiting], in_flight: Mapping[Lane, int], failing: Collection[str], limits: Limits
) -> list[Share]:
    """Divide what is free among the lanes that are due: retries first, then the least busy, then the longest due."""
    free = limits.overall - sum(in_flight.values())
    shares = []
    for lane in sorted(waiting, key=lambda one: _rank(one, in_flight)):
        count = min(free, _bound(lane, failing, limits) - in_flight.get((lane.workspace_id, lane.retrying), 0))
        if count > 0:
            shares.append(Share(lane.workspace_id, lane.retrying, count))
            free -= count
    return shares


def _rank(lane: Waiting, in_flight: Mapping[Lane, int]) -> tuple[object, ...]:
    return (not lane.retrying, in_flight.get((lane.workspace_id, lane.retrying), 0), lane.due_at, lane.workspace_id)


def _bound(lane: Waiting, failing: Collection[str], limits: Limits) -> int:
    if lane.retrying:
        return limits.retries_per_receiver
    return limits.first_per_failing_receiver if lane.workspace_id in failing else limits.first_per_receiver
