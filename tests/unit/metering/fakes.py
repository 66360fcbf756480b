"""Slow, obvious stand-ins for metering's ports, and the model that the real ledger is compared with."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from domain.limit_tree import Threshold
from domain.positions import BeyondPositionError, Progress, Span
from domain.sources import EventBatch
from metering.core.sums import Counter, LimitTotal, Totals
from runtime.clock import Clock
from schemas.daily import DailyUsage
from schemas.decisions import Decision
from schemas.usage import UsageEvent


class DictLedger:
    """Implements `Ledger` in dicts, event by event."""

    def __init__(self, clock: Clock) -> None:
        self.events: dict[str, UsageEvent] = {}
        self._clock = clock
        self._daily: dict[Counter, DailyUsage] = {}
        self._limits: dict[Counter, LimitTotal] = {}
        self._marks: dict[str, dict[str, int]] = {}
        self._heard_at: dict[tuple[str, str], datetime] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._moved_at: dict[tuple[str, int], datetime] = {}
        self._published: dict[tuple[str, int], tuple[int, datetime]] = {}
        self._changed_at: dict[tuple[str, Counter], tuple[str, datetime]] = {}

    async def apply(self, batch: EventBatch) -> Totals:
        place = (batch.topic, batch.partition)
        position = self._positions.get(place, batch.first_offset)
        if batch.first_offset > position:
            raise BeyondPositionError(batch, position)
        marks = self._marks.setdefault(batch.lane, {})
        changed: set[tuple[str, Counter]] = set()
        for event in batch.events if batch.next_offset > position else ():
            producer = event.producer
            if producer.sequence > marks.get(producer.instance, 0):
                marks[producer.instance] = producer.sequence
                self._heard_at[batch.lane, producer.instance] = self._clock()
            if event.idempotency_key not in self.events:
                self.events[event.idempotency_key] = event
                self._count(event)
                changed |= _names(event)
        self._raise_versions(changed)
        self._changed_at |= dict.fromkeys(changed, (batch.lane, self._clock()))
        if batch.next_offset > self._positions.get(place, -1):
            self._moved_at[place] = self._clock()
        self._positions[place] = max(position, batch.next_offset)
        named = {name for event in batch.events for name in _names(event)}
        return Totals(
            daily=tuple(self._daily[counter] for kind, counter in named if kind == "daily"),
            limits=tuple(self._limits[counter] for kind, counter in named if kind == "limit"),
            marks=self._heard(batch.lane),
            position=self._positions[place],
        )

    async def position(self, topic: str, partition: int) -> int | None:
        return self._positions.get((topic, partition))

    async def progress(self, topic: str, partition: int) -> Progress | None:
        place = (topic, partition)
        if place not in self._positions:
            return None
        return Progress(self._positions[place], self._moved_at[place], *self._published.get(place, (None, None)))

    async def note_published(self, topic: str, partition: int, upto: Progress) -> None:
        known = self._published.get((topic, partition))
        if known is None or known[1] <= upto.recorded_at:
            self._published[topic, partition] = (upto.next_offset, upto.recorded_at)

    async def changed(self, topic: str, partition: int, lane: str, span: Span) -> tuple[Totals, datetime]:
        """Return them one moment at a time."""
        moments = {at for of, at in self._changed_at.values() if of == lane and span.since <= at <= span.through}
        reached = min(moments, default=span.through)
        found = {name for name, (of, at) in self._changed_at.items() if of == lane and at in {reached} & moments}
        totals = Totals(
            daily=tuple(self._daily[counter] for kind, counter in found if kind == "daily"),
            limits=tuple(self._limits[counter] for kind, counter in found if kind == "limit"),
            marks=self._heard(lane) if found else {},
            position=self._positions.get((topic, partition)),
        )
        return totals, reached if moments - {reached} else span.through

    def _heard(self, lane: str) -> dict[str, int]:
        marks = self._marks.get(lane, {})
        newest = max((self._heard_at[lane, instance] for instance in marks), default=None)
        return {
            instance: mark
            for instance, mark in marks.items()
            if newest is not None and newest - self._heard_at[lane, instance] <= timedelta(days=10)
        }

    def _count(self, event: UsageEvent) -> None:
        day, tokens = event.timestamp.astimezone(UTC).date(), event.tokens
        own = Counter(day, event.group_id, event.model_slug)
        usage = self._daily.get(own) or _no_usage(event, own)
        if event.kind == "correction":
            added = {
                "corrections": usage.corrections + 1,
                "corrected_input_tokens": usage.corrected_input_tokens + tokens.input_tokens,
                "corrected_output_tokens": usage.corrected_output_tokens + tokens.output_tokens,
            }
            self._daily[own] = usage.model_copy(update=added)
            return
        added = {
            "requests": usage.requests + 1,
            "input_tokens": usage.input_tokens + tokens.input_tokens,
            "output_tokens": usage.output_tokens + tokens.output_tokens,
            "cached_input_tokens": usage.cached_input_tokens + tokens.cached_input_tokens,
        }
        self._daily[own] = usage.model_copy(update=added)
        for group in event.charged_groups:
            counter = Counter(day, group, event.model_slug)
            total = self._limits.get(counter, LimitTotal(counter, 0, 0, 0))
            used = total.tokens + tokens.input_tokens + tokens.output_tokens
            self._limits[counter] = LimitTotal(counter, total.requests + 1, used, total.version)

    def _raise_versions(self, changed: set[tuple[str, Counter]]) -> None:
        for kind, counter in changed:
            if kind == "daily":
                usage = self._daily[counter]
                raised = {"version": usage.version + 1, "updated_at": self._clock()}
                self._daily[counter] = usage.model_copy(update=raised)
            else:
                total = self._limits[counter]
                self._limits[counter] = LimitTotal(counter, total.requests, total.tokens, total.version + 1)


def _names(event: UsageEvent) -> set[tuple[str, Counter]]:
    day = event.timestamp.astimezone(UTC).date()
    charged = event.charged_groups if event.kind == "usage" else ()
    return {("daily", Counter(day, event.group_id, event.model_slug))} | {
        ("limit", Counter(day, group, event.model_slug)) for group in charged
    }


def _no_usage(event: UsageEvent, counter: Counter) -> DailyUsage:
    return DailyUsage(
        workspace_id=event.workspace_id,
        group_id=counter.group_id,
        external_entity_id=event.external_entity_id,
        model_slug=counter.model_slug,
        day=counter.day,
        requests=0,
        input_tokens=0,
        output_tokens=0,
        cached_input_tokens=0,
        corrections=0,
        corrected_input_tokens=0,
        corrected_output_tokens=0,
        version=0,
        updated_at=event.timestamp,
    )


class ListPublisher:
    """Implements `Publisher`: keeps what it was given, or raises what it was told to."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.daily: list[DailyUsage] = []
        self.failure: Exception | None = None

    async def publish(self, decisions: Sequence[Decision], daily: Sequence[DailyUsage]) -> None:
        if self.failure is not None:
            raise self.failure
        self.decisions.extend(decisions)
        self.daily.extend(daily)


class DictThresholds:
    """Implements `Thresholds`."""

    def __init__(self, **of: tuple[Threshold, ...]) -> None:
        self._of = of

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        return self._of.get(group_id, ())


class ListPartition:
    """Implements `EventSource` on a list whose first event has offset 1; `waited` tells when a reader found no more."""

    def __init__(self, topic: str, lane: str = "embedded") -> None:
        self.topic = topic
        self.index = 0
        self.lane = lane
        self.first_offset = 1
        self.reads: list[tuple[int, int]] = []
        self.waited = asyncio.Event()
        self._events: list[UsageEvent] = []
        self._more = asyncio.Event()

    def put(self, *events: UsageEvent) -> None:
        self._events.extend(events)
        self.waited.clear()
        self._more.set()

    async def read(self, offset: int, limit: int) -> EventBatch:
        self.reads.append((offset, limit))
        self._more.clear()
        events = tuple(self._events[offset - 1 : offset - 1 + limit])
        return EventBatch(self.topic, self.index, self.lane, offset, offset + len(events), events)

    async def wait(self, offset: int, timeout_s: float) -> None:
        self.waited.set()
        await self._more.wait()
