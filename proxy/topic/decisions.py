"""Follows ``limits.decisions.v2``: what metering has counted of the days that this proxy counts (counting 5, 6).

Never hands over a decision of another day: the topic holds those of 48 hours. Never tells a lane's `whole` while
something told before it may not be read yet.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

import msgspec

from domain.days import period
from runtime.clock import Clock
from runtime.kafka import feed
from runtime.kafka.feed import Feed, FeedConsumer, FeedRecord, SkippedRecords
from runtime.kafka.writer import Kafka
from runtime.outage import Pause
from schemas.decisions import DecisionBySequence, HeardDecision, Spread, Whole
from schemas.limits import UsageLimitUnit
from schemas.topics import LIMITS_DECISIONS, LIMITS_DECISIONS_V1, SPREAD_KEY, WHOLE_KEY

SILENCE_S = 60.0
"""After so long without a record the consumer is replaced: it may have died silently. A lane in use is told of at
least every 30 s."""

_DAYS = (-1, 0, 1)
"""From yesterday, whose last requests may still be in flight, to tomorrow: another proxy's clock may be ahead."""


_SPREAD = SPREAD_KEY.encode()
_decode = msgspec.json.Decoder(HeardDecision).decode


class DecisionsFeed(Feed):
    """Hands each lane's decisions and `whole` to `on_told`, in their order; older ones may come after newer ones.

    Offsets have gaps only by compaction: what is missing was told again later. So behind a gap, and at the beginning,
    `whole` is held back until the end that the lane had then is read.
    """

    def __init__(
        self,
        where: Kafka,
        on_told: Callable[[Sequence[HeardDecision | Whole | Spread]], None],
        clock: Clock,
        *,
        steady: Callable[[], float] = time.monotonic,
        pause: Pause = asyncio.sleep,
        connect: Callable[[Kafka], FeedConsumer] = feed.connect,
    ) -> None:
        super().__init__(
            where, LIMITS_DECISIONS, self._take, silence_s=SILENCE_S, steady=steady, pause=pause, connect=connect
        )
        self._on_told = on_told
        self._clock = clock
        self._unreadable = SkippedRecords(LIMITS_DECISIONS, steady)
        self._next: dict[int, int] = {}
        """By lane: the offset that follows without a gap."""
        self._whole_from: dict[int, int] = {}
        """By lane: below this offset there may be more to hear than was read."""
        self._held: dict[int, Whole] = {}
        """By lane: the newest `whole` that is held back."""

    def _take(self, records: Sequence[FeedRecord]) -> None:
        periods = _periods(self._clock)
        told: list[HeardDecision | Whole | Spread] = []
        for record in records:
            lane = record.partition
            if record.offset != self._next.get(lane):
                self._whole_from[lane] = self.heard_end(lane)
            self._next[lane] = record.offset + 1
            if record.value is not None:
                try:
                    self._decode(record, record.value, periods, told)
                except (ValueError, msgspec.DecodeError) as error:
                    self._unreadable.skip(record.place, error)
            if lane in self._held and self._next[lane] >= self._whole_from[lane]:
                told.append(self._held.pop(lane))
        if told:
            self._on_told(told)

    def _decode(
        self, record: FeedRecord, value: bytes, periods: Collection[str], told: list[HeardDecision | Whole | Spread]
    ) -> None:
        if record.key == WHOLE_KEY:
            whole = Whole.model_validate_json(value)
            held = self._held.get(record.partition)
            if held is None or whole.at > held.at:
                self._held[record.partition] = whole
        elif record.key.startswith(_SPREAD):
            told.append(Spread.model_validate_json(value))
        else:
            decision = _decode(value)
            if decision.period in periods:
                told.append(decision)


class DecisionsBySequenceFeed(Feed):
    """Hands over what a metering of the version before tells in ``limits.decisions.v1``; see `proxy.limits.days`."""

    def __init__(
        self, where: Kafka, on_decisions: Callable[[Sequence[DecisionBySequence]], None], clock: Clock
    ) -> None:
        super().__init__(where, LIMITS_DECISIONS_V1, self._take, silence_s=SILENCE_S)
        self._on_decisions = on_decisions
        self._clock = clock
        self._unreadable = SkippedRecords(LIMITS_DECISIONS_V1)

    def _take(self, records: Sequence[FeedRecord]) -> None:
        days = [f'"{name}"'.encode() for name in _periods(self._clock)]  # to look for it costs little
        decisions = []
        for record in records:
            if record.value is None or not any(day in record.value for day in days):
                continue
            try:
                decisions.append(DecisionBySequence.model_validate_json(record.value))
            except ValueError as error:
                self._unreadable.skip(record.place, error)
        if decisions:
            self._on_decisions(decisions)


def _periods(clock: Clock) -> Collection[str]:
    """Return the names of the days that are counted, and of their months."""
    today = clock().date()
    around = [today + timedelta(days=offset) for offset in _DAYS]
    return {period(day, unit) for day in around for unit in UsageLimitUnit}
