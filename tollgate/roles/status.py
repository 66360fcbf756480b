"""What a process tells control of itself every ten seconds, and of each minute that has ended (contract 6).

While nobody takes it, the last MOST_MINUTES minutes wait; older ones, and what is newer than the last tick, are lost.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime

from runtime import ids, loops, version
from runtime.clock import Clock
from runtime.http.health import Check
from runtime.kafka.writer import Kafka, KafkaAwayError, KafkaRecord, RecordTooLargeError, Writer, cloud_event
from runtime.loops import Loops
from runtime.outage import Pause, is_transient
from runtime.telemetry.metrics import Telemetry
from schemas.monitoring.status import (
    MOST_LOOPS,
    MOST_SHOWN,
    CallCounts,
    LoopStatus,
    ProcessStatus,
    Stage,
    StatusMinute,
)
from schemas.topics import GATEWAY_STATUS

EVERY_S = 10.0
MOST_MINUTES = 10
"""Ended minutes that wait to be told."""

_AFTER_S = 0.05
"""How long after a full ten seconds a process tells: a timer may be a little early."""
_WITHIN_S = 5.0
_METRICS = {
    Stage.PUBLISHING: "tollgate_spool_unpublished_rows",
    Stage.COUNTING: "tollgate_metering_lag_events",
    Stage.INTAKE: "tollgate_webhook_lag_events",
    Stage.FEEDBACK: "tollgate_feedback_lag_seconds",
    Stage.DELIVERY: "tollgate_webhook_overdue_seconds",
}

Tell = Callable[[ProcessStatus], Awaitable[object]]
"""Hands a status on. May raise KafkaAwayError, RecordTooLargeError, or what `is_transient` says passes by itself."""

log = logging.getLogger(__name__)


class StatusTopic:
    """Writes to the topic."""

    def __init__(self, kafka: Kafka) -> None:
        self._writer = Writer(kafka, "the status")

    async def tell(self, status: ProcessStatus) -> None:
        """Return when the broker has it. Raise KafkaAwayError, RecordTooLargeError."""
        headers = cloud_event(GATEWAY_STATUS, ids.mint(status.at), status.process, status.at)
        record = KafkaRecord(status.process.encode(), status.model_dump_json().encode(), headers)
        await self._writer.write(GATEWAY_STATUS, [record], _WITHIN_S)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._writer.close()


class StatusReporter:
    """Tells of one process."""

    def __init__(
        self,
        role: str,
        tell: Tell,
        *,
        clock: Clock,
        known: Loops,
        telemetry: Telemetry,
        checks: Mapping[str, Check],
        calls: Callable[[], Sequence[CallCounts]],
        pause: Pause = asyncio.sleep,
    ) -> None:
        """`calls` returns what ended since it was asked last; `checks` say why no traffic may come."""
        self._role = role
        self._tell = tell
        self._clock = clock
        self._known = known
        self._telemetry = telemetry
        self._checks = checks
        self._calls = calls
        self._pause = pause
        self._started_at = clock()
        self._process = ids.mint(self._started_at)
        self._minute = _minute_of(self._started_at)
        self._worst: dict[Stage, float] = {}
        self._waiting: deque[StatusMinute] = deque(maxlen=MOST_MINUTES)
        self._is_away = False

    async def run(self) -> None:
        """Tell for as long as the process runs, shortly after each full ten seconds."""
        while True:
            rest_s = EVERY_S - self._clock().timestamp() % EVERY_S + _AFTER_S
            loops.turned(1, rest_s=2 * EVERY_S)  # while Kafka is away a tick takes as long as a rest
            await self._pause(rest_s)
            await self.step()

    async def step(self) -> None:
        """Tell of now, and of each minute that has ended since the last time."""
        now = self._clock()
        lags = await self._lags()
        if _minute_of(now) > self._minute:
            self._waiting.append(StatusMinute(start=self._minute, lags=self._worst, calls=tuple(self._calls())))
            self._minute, self._worst = _minute_of(now), {}
        self._worst = {stage: max(lag, self._worst.get(stage, 0.0)) for stage, lag in lags.items()}
        status = self._status(now, lags)
        try:
            for minute in tuple(self._waiting) or (None,):
                await self._tell(status.model_copy(update={"minute": minute}))
                if minute is not None:
                    self._waiting.popleft()
        except RecordTooLargeError as error:  # the topic's own bound was lowered
            log.warning("a minute of this process is not told: %s", error)
            self._waiting.popleft()
        except Exception as error:
            if not (isinstance(error, KafkaAwayError) or is_transient(error)):
                raise
            if not self._is_away:
                log.warning("the status of this process is not taken: %s", error)
            self._is_away = True
        else:
            self._is_away = False

    async def _lags(self) -> dict[Stage, float]:
        sums = await self._telemetry.sums(_METRICS.values())
        return {stage: sums[name] for stage, name in _METRICS.items() if name in sums}

    def _status(self, now: datetime, lags: Mapping[Stage, float]) -> ProcessStatus:
        problems = [f"{name}: {problem}" for name, check in self._checks.items() if (problem := check()) is not None]
        return ProcessStatus(
            process=self._process,
            role=self._role,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            version=version.current(),
            started_at=self._started_at,
            at=now,
            problem="; ".join(problems)[:MOST_SHOWN] or None,
            loops=tuple(self._loops())[:MOST_LOOPS],
            lags=dict(lags),
        )

    def _loops(self) -> Iterator[LoopStatus]:
        now_s = self._known.now_s()
        for one in self._known.known.values():
            yield LoopStatus(
                name=one.name[:255],
                did=one.did,
                overdue_s=round(max(0.0, now_s - one.due_at_s), 3),
                waits_for=one.waits_for[:MOST_SHOWN],
                is_still=one.is_still(now_s),
            )


def _minute_of(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)
