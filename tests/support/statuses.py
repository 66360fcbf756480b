"""What processes tell of themselves, for tests."""

from datetime import datetime
from typing import Any

from schemas.monitoring.status import (
    OWN_S,
    WHOLE_S,
    CallCounts,
    LatencyCounts,
    LoopStatus,
    ProcessStatus,
    Stage,
    StatusMinute,
)


def status(process: str, at: datetime, minute: StatusMinute | None = None, **fields: Any) -> ProcessStatus:
    """Return what a proxy tells at `at`."""
    loop = LoopStatus(name="the publisher", did=3, overdue_s=0, waits_for="its next turn", is_still=False)
    of_all: dict[str, Any] = {"role": "proxy", "host": "machine", "pid": 7, "version": "1", "started_at": at}
    return ProcessStatus(process=process, at=at, minute=minute, **(of_all | {"loops": (loop,)} | fields))


def minute(start: datetime, *calls: CallCounts, **lags: float) -> StatusMinute:
    """Return a minute with some calls and lags."""
    return StatusMinute(start=start, lags={Stage(name): lag for name, lag in lags.items()}, calls=calls)


def calls(workspace_id: str, slug: str = "a/b", group_id: str = "g", **outcomes: int) -> CallCounts:
    """Return calls that all took 20 ms, 2 ms of them the gateway's own."""
    count = sum(outcomes.values())
    whole = LatencyCounts(counts=(0, count, *[0] * (len(WHOLE_S) - 1)), sum_s=0.02 * count)
    own = LatencyCounts(counts=(0, 0, 0, 0, count, *[0] * (len(OWN_S) - 4)), sum_s=0.002 * count)
    return CallCounts(
        workspace_id=workspace_id,
        group_id=group_id,
        slug=slug,
        outcomes=outcomes,
        whole=whole,
        first_byte=whole,
        own=own,
    )
