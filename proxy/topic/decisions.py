"""Follows ``limits.decisions.v1``: metering's word on the days that this proxy counts (counting 5, 6).

Never decodes a decision of another day: the topic holds those of 48 hours.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from runtime.clock import Clock
from runtime.kafka import feed
from runtime.kafka.feed import Consumer, Feed, FeedRecord, SkippedRecords
from runtime.kafka.writer import Kafka
from runtime.outage import Pause
from schemas.decisions import Decision
from schemas.topics import LIMITS_DECISIONS

SILENCE_S = 60.0
"""Metering need have nothing to say, so silence tells little: after so much of it the consumer is replaced all the
same, as it may have died without a word."""

_DAYS = (-1, 0, 1)
"""From yesterday, whose last requests may still be in flight, to tomorrow: another proxy's clock may be ahead."""


class DecisionsFeed(Feed):
    """Hands decisions to `on_decisions`, in the order of their counter; older ones may come after newer ones."""

    def __init__(
        self,
        where: Kafka,
        on_decisions: Callable[[Sequence[Decision]], None],
        clock: Clock,
        *,
        steady: Callable[[], float] = time.monotonic,
        pause: Pause = asyncio.sleep,
        connect: Callable[[Kafka], Consumer] = feed.connect,
    ) -> None:
        super().__init__(
            where, LIMITS_DECISIONS, self._take, silence_s=SILENCE_S, steady=steady, pause=pause, connect=connect
        )
        self._on_decisions = on_decisions
        self._clock = clock
        self._unreadable = SkippedRecords(LIMITS_DECISIONS, steady)

    def _take(self, records: Sequence[FeedRecord]) -> None:
        today = self._clock().date()
        # a quoted date is a decision's day and nothing else in it: a hundredth of what decoding costs
        days = [f'"{today + timedelta(days=offset)}"'.encode() for offset in _DAYS]
        decisions = []
        for record in records:
            value = record.value
            if value is None or not any(day in value for day in days):
                continue
            try:
                decisions.append(Decision.model_validate_json(value))
            except ValueError as error:
                self._unreadable.skip(record.place, error)
        if decisions:
            self._on_decisions(decisions)
