"""Tells the other proxies over ``limits.inflight.v1`` what this one has in flight near a limit, and hears theirs.

No request waits for it: what is lost or late makes a limit as loose as without it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from proxy.limits.days import DayCounters
from proxy.limits.in_flight import NEAR, SILENT_S, TELL_EVERY_S, Amounts, CounterKey
from runtime import loops
from runtime.clock import Clock, Steady
from runtime.kafka import feed
from runtime.kafka.feed import Feed, FeedConsumer, FeedRecord, SkippedRecords
from runtime.kafka.writer import Kafka, KafkaAwayError, KafkaRecord, Writer, cloud_event
from runtime.outage import Pause
from schemas.decisions import HeardDecision, InFlightUsage, Spread, Whole
from schemas.topics import LIMITS_IN_FLIGHT

SILENCE_S = 60.0
"""After so long without a record the consumer is replaced; there is none while no limit is near."""

_WRITE_WITHIN_S = 5.0

log = logging.getLogger(__name__)


class InFlightTeller:
    """Tells what `days` has to tell, five times a second; and expires what others told."""

    def __init__(
        self,
        writer: Writer,
        days: DayCounters,
        instance: str,
        clock: Clock,
        *,
        lanes: Iterable[int],
        steady: Steady = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.told = 0
        """Records that were told since the start."""
        self._writer = writer
        self._days = days
        self._instance = instance
        self._clock = clock
        self._whole_at_s = dict.fromkeys(lanes, steady())
        """By lane, when it told `whole` last."""
        self._steady = steady
        self._pause = pause

    def hear(self, told: Iterable[HeardDecision | Whole | Spread]) -> None:
        """Take note of the lanes whose owners tell `whole`."""
        self._whole_at_s |= {one.lane: self._steady() for one in told if isinstance(one, Whole)}

    async def run(self) -> None:
        """Tell for as long as the process runs. While Kafka is away nothing is told."""
        while True:
            loops.turned(rest_s=TELL_EVERY_S + _WRITE_WITHIN_S)
            await self._pause(TELL_EVERY_S)
            await self.turn()

    async def turn(self) -> None:
        """Expire what others told, and tell what is due."""
        now_s = self._steady()
        self._days.tell_others_from(0.0 if now_s - min(self._whole_at_s.values()) > SILENT_S else NEAR)
        self._days.others.expire(now_s)
        due = self._days.others.due(now_s)
        if not due:
            return
        with suppress(KafkaAwayError):  # it is told again within a second, or is void
            await self._writer.write(LIMITS_IN_FLIGHT, [self._record(*one) for one in due], _WRITE_WITHIN_S)
            self.told += len(due)

    def _record(self, key: CounterKey, own: Amounts) -> KafkaRecord:
        name = f"{key.group}/{key.slug}/{key.day}/{self._instance}"
        value = InFlightUsage(
            group_id=key.group,
            model_slug=key.slug,
            day=key.day,
            instance=self._instance,
            requests=own.requests,
            tokens=own.tokens,
            input_tokens=own.tokens - own.output_tokens,
            output_tokens=own.output_tokens,
            cost=own.cost,
        )
        at = self._clock()
        headers = cloud_event(f"tollgate.{LIMITS_IN_FLIGHT}", f"{name}/{at.timestamp():.3f}", self._instance, at)
        return KafkaRecord(name.encode(), value.model_dump_json(by_alias=True).encode(), headers)


class InFlightFeed(Feed):
    """Hears what other proxies tell, from now on."""

    def __init__(
        self,
        where: Kafka,
        days: DayCounters,
        *,
        steady: Callable[[], float] = time.monotonic,
        pause: Pause = asyncio.sleep,
        connect: Callable[[Kafka], FeedConsumer] = feed.connect,
    ) -> None:
        super().__init__(
            where,
            LIMITS_IN_FLIGHT,
            self._take,
            from_end=True,
            silence_s=SILENCE_S,
            steady=steady,
            pause=pause,
            connect=connect,
        )
        self._days = days
        self._now_s = steady
        self._unreadable = SkippedRecords(LIMITS_IN_FLIGHT, steady)

    def _take(self, records: Sequence[FeedRecord]) -> None:
        for record in records:
            try:
                told = InFlightUsage.model_validate_json(record.value or b"")
            except ValueError as error:
                self._unreadable.skip(record.place, error)
                continue
            key = CounterKey(told.group_id, told.model_slug, told.day)
            amounts = Amounts(told.requests, told.tokens, told.output_tokens, told.cost)
            self._days.others.take(key, told.instance, amounts, self._now_s())
