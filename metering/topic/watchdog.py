"""Compares the ledger's positions with the logs' ends, and ends a worker whose stream hangs (counting 4).

It judges only while the database and Kafka answer. A Faust that stops reading and logs nothing is a known class of bugs
(faust-streaming 175, 229, 640), and so is one that misses its assignment.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from domain import positions
from metering.core.stalls import Backlog, Log
from metering.topic.lanes import lane_of
from runtime import loops, outage
from runtime.kafka.reader import LogBounds
from runtime.kafka.writer import KafkaAwayError
from runtime.outage import Pause

LOOK_EVERY_S = 5.0

STALLED_S = 60.0
"""How long a partition may stand still, with a lag and with the database and Kafka there, before the worker ends."""

LEFT_OUT_S = 300.0
"""The same for a worker that the group gives no partition: it may have missed its own."""


PositionOf = Callable[[int], Awaitable[int | None]]
BoundsOf = Callable[[], Awaitable[Mapping[int, LogBounds]]]


class StalledError(Exception):
    """Partitions with a lag do not move, though the database and Kafka answer: the stream hangs."""


class Watchdog:
    """Looks at this worker's partitions, or at all where it has none."""

    def __init__(
        self,
        position: PositionOf,
        bounds: BoundsOf,
        owned: Callable[[], Collection[int]],
        *,
        pause: Pause = asyncio.sleep,
        steady: Callable[[], float] = time.monotonic,
        stalled_s: float = STALLED_S,
        left_out_s: float = LEFT_OUT_S,
    ) -> None:
        """`position` and `bounds` ask the database and Kafka; `owned` gives the partitions that are this worker's."""
        self._position = position
        self._bounds = bounds
        self._owned = owned
        self._pause = pause
        self._steady = steady
        self._stalled_s = stalled_s
        self._left_out_s = left_out_s
        self._backlog = Backlog()
        self._was_owned: frozenset[int] = frozenset()
        self._busy_at: dict[int, float] = {}
        self.lag: Mapping[int, int] = {}
        """How many offsets are still to count in each partition that is this worker's, as of the last look."""

    def busy(self, partitions: Collection[int]) -> None:
        """Note that these are worked on, or tried again: whoever waits for a service does not hang."""
        self._busy_at.update(dict.fromkeys(partitions, self._steady()))

    async def run(self) -> None:
        """Look until cancelled. Raise StalledError, LogShrunkError, and what does not pass by itself."""
        while True:
            loops.turned(rest_s=LOOK_EVERY_S)
            await self._pause(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception as error:
                if not (outage.is_transient(error) or isinstance(error, KafkaAwayError)):
                    raise
                self._backlog.forgive()

    async def look(self) -> None:
        """Look once."""
        owned = self._owned()
        self._backlog.forgive(set(owned) - self._was_owned)  # the group may have kept this worker waiting for long
        self._was_owned = frozenset(owned)
        logs = await self._logs(owned)
        self.lag = {one: log.lag for one, log in logs.items() if one in owned}
        bound_s = self._stalled_s if owned else self._left_out_s
        stalled = self._backlog.look(self._steady(), logs, self._busy_at, bound_s)
        if stalled:
            places = ", ".join(f"{lane_of(one)} at {logs[one].position}, {logs[one].lag} behind" for one in stalled)
            raise StalledError(f"nothing was counted for {bound_s:g} s: {places}")

    async def _logs(self, owned: Collection[int]) -> dict[int, Log]:
        watched = owned or (await self._bounds()).keys()
        found = {one: await self._position(one) for one in watched}
        bounds = await self._bounds()  # after the positions: none may lie beyond its end
        logs = {one: Log(found[one], *bounds[one]) for one in watched}
        for one, log in logs.items():
            positions.check_end(lane_of(one), log.position, log.end)
        return logs
