"""The page of how the installation does: how far each stage lags behind, for an hour, and every process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from litestar import Controller, Response, get
from sqlalchemy import Connection

from control.api.common import AtDesk, ManagementRequest
from control.console import guard
from control.console.sign_in import AtPages
from control.store.monitoring import status
from control.store.monitoring.status import Unit
from schemas.monitoring.status import SECONDS, ProcessStatus, Stage

HEARD_WITHIN = timedelta(seconds=30)
"""A process that told nothing for longer is shown as silent; each tells every ten seconds."""

_MINUTES = 60
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class StageLag:
    """How far one stage lags, in events or, of `SECONDS`, in seconds."""

    stage: Stage
    is_time: bool
    now: float | None
    """None: no process that is heard is part of it."""
    minutes: Sequence[tuple[datetime, float | None]]
    """The greatest of each minute, the oldest first; None: nobody told of it."""

    @property
    def most(self) -> float:
        """Return the greatest of all."""
        return max([self.now or 0.0, *(lag or 0.0 for _, lag in self.minutes)])


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process."""

    status: ProcessStatus
    is_heard: bool
    still: Sequence[str]
    """The loops that stand still."""


class ProcessController(Controller):
    """``/console/operator/processes``."""

    path = "/operator/processes"
    opt = guard.OPERATORS

    @get()
    async def show(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[str]:
        """Show the lags of the last hour, and all processes that told of themselves within a day."""
        now = desk.clock()
        found = await desk.look(request.auth, lambda connection: _found(connection, now))
        return templates.page(request, "processes.html", **found)


def _found(connection: Connection, now: datetime) -> dict[str, Any]:
    rows = [
        ProcessRow(one, now - one.at <= HEARD_WITHIN, [loop.name for loop in one.loops if loop.is_still])
        for one in status.processes(connection)
    ]
    return {"stages": _stages(connection, now, [row.status for row in rows if row.is_heard]), "processes": rows}


def _stages(connection: Connection, now: datetime, heard: Sequence[ProcessStatus]) -> list[StageLag]:
    """Return the stages that any process told of."""
    begun = now.replace(second=0, microsecond=0)
    starts = [begun - _MINUTE * back for back in range(_MINUTES, -1, -1)]
    known: dict[Stage, dict[datetime, float]] = {}
    for point in status.lags(connection, Unit.MINUTE, starts[0]):
        known.setdefault(point.stage, {})[point.start] = point.lag
    present = _present(heard)
    return [
        StageLag(
            stage=stage,
            is_time=stage in SECONDS,
            now=present.get(stage),
            minutes=[(start, known.get(stage, {}).get(start)) for start in starts],
        )
        for stage in Stage
        if stage in known or stage in present
    ]


def _present(heard: Sequence[ProcessStatus]) -> Mapping[Stage, float]:
    """Return the lags of all processes together: events add up, of seconds the greatest holds."""
    sums: dict[Stage, float] = {}
    for one in heard:
        for stage, lag in one.lags.items():
            sums[stage] = max(sums.get(stage, 0.0), lag) if stage in SECONDS else sums.get(stage, 0.0) + lag
    return sums
