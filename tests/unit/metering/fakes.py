"""Slow, obvious stand-ins for metering's ports, and the model that the real ledger is compared with."""

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from domain.limit_tree import Threshold
from domain.positions import BeyondPositionError, Progress
from domain.sources import EventBatch
from metering.core import sums
from metering.core.alerts import Alert, AlertedGroup
from metering.core.decisions import Part
from metering.core.sums import Counter, LimitIncrement, LimitTotal, Totals
from runtime.clock import Clock
from schemas.daily import DailyUsage
from schemas.limits import ANY_SLUG, UsageLimitUnit
from schemas.spooled import AnyEvent
from schemas.usage import UsageEvent


class DictLedger:
    """Implements `Ledger` in dicts, event by event."""

    def __init__(self, clock: Clock) -> None:
        self.events: dict[str, AnyEvent] = {}
        self.alerts: dict[str, Alert] = {}
        self.kept_spreads: dict[str, int] = {}
        self._clock = clock
        self._daily: dict[tuple[str, Counter], DailyUsage] = {}
        self._limits: dict[tuple[str, Counter], LimitTotal] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._told: dict[tuple[str, int], tuple[int, int | None, datetime]] = {}
        self._told_from: dict[tuple[str, int], date] = {}
        self._changed_at: dict[tuple[str, Counter], int] = {}

    async def apply(self, batch: EventBatch) -> Totals:
        place = (batch.topic, batch.partition)
        position = self._positions.get(place, batch.first_offset)
        if batch.first_offset > position:
            raise BeyondPositionError(batch, position)
        changed: set[tuple[str, Counter]] = set()
        for event in batch.events if batch.next_offset > position else ():
            if event.idempotency_key not in self.events:
                self.events[event.idempotency_key] = event
                self._count(batch.lane, event)
                changed |= _names(event)
        self._raise_versions(batch.lane, changed)
        for _, counter in changed:
            self._changed_at[batch.lane, counter] = batch.next_offset
            if counter.day < self._clock().date() - timedelta(days=1):
                self._told_from[place] = min(counter.day, self._told_from.get(place, counter.day))
        self._positions[place] = max(position, batch.next_offset)
        named = {counter for event in batch.events for _, counter in _names(event)}
        limits = {counter for event in batch.events for kind, counter in _names(event) if kind == "limit"}
        return self._found(batch.lane, named, limits, self._positions[place])

    async def position(self, topic: str, partition: int) -> int | None:
        return self._positions.get((topic, partition))

    async def first_version(self) -> int:
        return 0

    async def progress(self, topic: str, partition: int) -> Progress | None:
        place = (topic, partition)
        if place not in self._positions:
            return None
        at, end, when = self._told.get(place, (None, None, None))
        return Progress(self._positions[place], at, end, when, self._told_from.get(place))

    async def note_told(self, topic: str, partition: int, at: int, end: int | None, now: datetime) -> bool:
        if self._positions.get((topic, partition)) != at:
            return False
        self._told[topic, partition] = (at, end, now)
        self._told_from.pop((topic, partition), None)
        return True

    async def untold(  # noqa: PLR0917 - the port's
        self, topic: str, partition: int, lane: str, told: int, from_day: date, after: Counter | None
    ) -> Totals:
        """Return them two at a time."""
        found = sorted(
            counter
            for (of, counter), at in self._changed_at.items()
            if of == lane and at > told and counter.day >= from_day and (after is None or counter > after)
        )
        return await self.parts(topic, partition, lane, found[:2])

    async def parts(self, topic: str, partition: int, lane: str, counters: Collection[Counter]) -> Totals:
        return self._found(lane, counters, counters, self._positions.get((topic, partition), 0))

    async def elsewhere(
        self, lane: str, daily: Collection[Counter], limits: Collection[Counter]
    ) -> tuple[Sequence[DailyUsage], Sequence[LimitTotal]]:
        return (
            [usage for (of, counter), usage in self._daily.items() if of != lane and counter in daily],
            [total for (of, counter), total in self._limits.items() if of != lane and counter in limits],
        )

    async def months(
        self, topic: str, partition: int, lane: str, names: Collection[Counter]
    ) -> tuple[Totals, Sequence[LimitTotal]]:
        own: dict[tuple[str, Counter], LimitTotal] = {}
        others: dict[tuple[str, Counter], LimitTotal] = {}
        for (of, counter), total in self._limits.items():
            month = counter._replace(day=counter.day.replace(day=1))
            if month in names:
                kept = own if of == lane else others
                known = kept.get((of, month), LimitTotal(month, 0, 0, 0))
                figures = ("requests", "tokens", "version", "input_tokens", "output_tokens", "cost")
                kept[of, month] = LimitTotal(month, *(getattr(known, one) + getattr(total, one) for one in figures))
        at = self._positions.get((topic, partition), 0)
        return Totals(lane, (), tuple(own.values()), at), tuple(others.values())

    async def named_in_month(self, lane: str, month: date, after: tuple[str, str]) -> Sequence[tuple[str, str]]:
        """Return them two at a time."""
        named = {
            (counter.group_id, counter.model_slug)
            for of, counter in self._limits
            if of == lane and counter.day.replace(day=1) == month
        }
        return sorted(name for name in named if name > after)[:2]

    async def spreads(self) -> Mapping[str, int]:
        return dict(self.kept_spreads)

    async def note_spread(self, tree: str, lanes: int, now: datetime) -> None:
        self.kept_spreads[tree] = lanes

    async def keep_alerts(self, found: Sequence[Alert]) -> None:
        for alert in found:
            self.alerts.setdefault(alert.id, alert)

    async def over_slugs(self, group_ids: Collection[str], first: date, last: date) -> Mapping[str, LimitIncrement]:
        whole: dict[str, LimitIncrement] = {}
        for (_, (day, group_id, _)), total in self._limits.items():
            if group_id in group_ids and first <= day <= last:
                figures = (total.requests, total.tokens, total.input_tokens, total.output_tokens, total.cost)
                more = LimitIncrement(*figures)
                whole[group_id] = whole.get(group_id, LimitIncrement()).plus(more)
        return whole

    async def daily(self, counters: Collection[Counter]) -> Mapping[Counter, DailyUsage]:
        return sums.whole_daily(usage for (_, counter), usage in self._daily.items() if counter in counters)

    def _found(self, lane: str, daily: Collection[Counter], limits: Collection[Counter], position: int) -> Totals:
        return Totals(
            lane,
            tuple(self._daily[lane, counter] for counter in sorted(daily) if (lane, counter) in self._daily),
            tuple(self._limits[lane, counter] for counter in sorted(limits) if (lane, counter) in self._limits),
            position,
        )

    def _count(self, lane: str, event: AnyEvent) -> None:
        day, tokens = event.timestamp.astimezone(UTC).date(), event.tokens
        own = Counter(day, event.group_id, event.model_slug)
        usage = self._daily.get((lane, own)) or _no_usage(event, own)
        if event.kind == "correction":
            added = {
                "corrections": usage.corrections + 1,
                "corrected_input_tokens": usage.corrected_input_tokens + tokens.input_tokens,
                "corrected_output_tokens": usage.corrected_output_tokens + tokens.output_tokens,
            }
            self._daily[lane, own] = usage.model_copy(update=added)
            return
        added = {
            "requests": usage.requests + 1,
            "input_tokens": usage.input_tokens + tokens.input_tokens,
            "output_tokens": usage.output_tokens + tokens.output_tokens,
            "cached_input_tokens": usage.cached_input_tokens + tokens.cached_input_tokens,
        }
        self._daily[lane, own] = usage.model_copy(update=added)
        for group in event.charged_groups:
            counter = Counter(day, group, event.model_slug)
            total = self._limits.get((lane, counter), LimitTotal(counter, 0, 0, 0))
            self._limits[lane, counter] = LimitTotal(
                counter,
                total.requests + 1,
                total.tokens + tokens.input_tokens + tokens.output_tokens,
                total.version,
                total.input_tokens + tokens.input_tokens,
                total.output_tokens + tokens.output_tokens,
                min(total.cost + event.cost, sums.MOST_COST),
            )

    def _raise_versions(self, lane: str, changed: set[tuple[str, Counter]]) -> None:
        for kind, counter in changed:
            if kind == "daily":
                usage = self._daily[lane, counter]
                raised = {"version": usage.version + 1, "updated_at": self._clock()}
                self._daily[lane, counter] = usage.model_copy(update=raised)
            else:
                total = self._limits[lane, counter]
                self._limits[lane, counter] = replace(total, version=total.version + 1)


def _names(event: AnyEvent) -> set[tuple[str, Counter]]:
    day = event.timestamp.astimezone(UTC).date()
    charged = event.charged_groups if event.kind == "usage" else ()
    return {("daily", Counter(day, event.group_id, event.model_slug))} | {
        ("limit", Counter(day, group, event.model_slug)) for group in charged
    }


def _no_usage(event: AnyEvent, counter: Counter) -> DailyUsage:
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
    """Implements `TotalsSink`: keeps what it was given, or raises what it was told to."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.daily: list[DailyUsage] = []
        self.failure: Exception | None = None
        self.meanwhile: Awaitable[object] | None = None
        """What another does while something is published, once."""

    async def publish(self, parts: Sequence[Part], daily: Sequence[DailyUsage]) -> None:
        if self.failure is not None:
            raise self.failure
        self.parts.extend(parts)
        self.daily.extend(daily)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile


class DictThresholds:
    """Implements `Thresholds`."""

    def __init__(self, **of: tuple[Threshold, ...]) -> None:
        self._of = of
        self.changed: list[str] = []
        """Groups whose limits on months have changed, as a test says."""
        self.changes = 0
        self.shares: tuple[int, ...] = ()
        """At which percents of a limit alerts are asked for."""

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        return () if model_slug == ANY_SLUG else self._of.get(group_id, ())

    def set(self, group_id: str, *limits: Threshold) -> None:
        self._of[group_id] = limits
        self.changes += 1

    def alerted(self, group_id: str) -> AlertedGroup | None:
        return AlertedGroup("workspace", f"external-{group_id}", self.shares) if self.shares else None

    def is_monthly(self, group_id: str, model_slug: str) -> bool:
        return any(threshold.unit is UsageLimitUnit.MONTH for threshold in self.of(group_id, model_slug))

    def months_changed(self, since: int, group_id: str) -> bool:
        return group_id in self.changed[since:]

    @property
    def month_changes(self) -> int:
        return len(self.changed)


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
