"""What the new usage events of a batch add to daily usage and to limit totals (contract 4).

Rules:

- Daily usage: the key's own group alone; corrections apart, in their own figures and nowhere else.
- Limit totals: one request to each charged group, with its prompt plus completion tokens; corrections add nothing.
- The day is the UTC day of the event's own timestamp, however late the event comes.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from domain.days import day_of
from schemas.daily import DailyUsage
from schemas.spooled import AnyEvent
from schemas.usage import Kind

MOST_COST = 2**61
"""The most that a lane's sum of one counter and day comes to, in millionths of a minor unit: a column has no room for
twice as much."""


class Counter(NamedTuple):
    """What sums are kept for: a group, a slug, a UTC day. Sorts by day first, as the tables do."""

    day: date
    group_id: str
    model_slug: str


class DailyIncrement(NamedTuple):
    """What events add to one counter's daily usage; the corrected tokens are signed."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    corrections: int = 0
    corrected_input_tokens: int = 0
    corrected_output_tokens: int = 0


class LimitIncrement(NamedTuple):
    """What events add to one counter's limit total; `tokens` is prompt plus completion, `cost` as the events say."""

    requests: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0

    def plus(self, other: "LimitIncrement") -> "LimitIncrement":
        """Return both together."""
        return LimitIncrement(*map(sum, zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Increments:
    """What a batch adds. Only counters that a new event touches are there."""

    daily: Mapping[Counter, DailyIncrement]
    limits: Mapping[Counter, LimitIncrement]


@dataclass(frozen=True, slots=True)
class LimitTotal:
    """What counts against one counter's limits, after `version` changes: a lane's part, or the sum over lanes."""

    counter: Counter
    requests: int
    tokens: int
    version: int
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """A lane's parts of daily usage and limit totals, as one transaction saw them."""

    lane: str
    daily: tuple[DailyUsage, ...]
    limits: tuple[LimitTotal, ...]
    position: int
    """The lane's next offset as the transaction left it: every event below is in the parts."""
    months: tuple[Counter, ...] = ()
    """Months that are to be told too; each bears its first day."""


def counter_of(usage: DailyUsage) -> Counter:
    """Return the counter that daily usage is of."""
    return Counter(usage.day, usage.group_id, usage.model_slug)


def whole_daily(parts: Iterable[DailyUsage]) -> dict[Counter, DailyUsage]:
    """Add up what lanes have of each counter; the version is the sum of theirs, so it grows with each of them."""
    whole: dict[Counter, DailyUsage] = {}
    for part in parts:
        counter = counter_of(part)
        known = whole.get(counter)
        whole[counter] = (
            part
            if known is None
            else part.model_copy(
                update={
                    name: getattr(known, name) + getattr(part, name) for name in (*DailyIncrement._fields, "version")
                }
                | {"updated_at": max(known.updated_at, part.updated_at)}
            )
        )
    return whole


def whole_limits(parts: Iterable[LimitTotal]) -> dict[Counter, LimitTotal]:
    """Add up what lanes have of each counter in the same way."""
    whole: dict[Counter, LimitTotal] = {}
    for part in parts:
        known = whole.get(part.counter)
        whole[part.counter] = (
            part
            if known is None
            else LimitTotal(
                part.counter,
                known.requests + part.requests,
                known.tokens + part.tokens,
                known.version + part.version,
                known.input_tokens + part.input_tokens,
                known.output_tokens + part.output_tokens,
                known.cost + part.cost,
            )
        )
    return whole


def daily_counter(event: AnyEvent) -> Counter:
    """Return the counter whose daily usage names the event: the key's own group's."""
    return Counter(day_of(event), event.group_id, event.model_slug)


def limit_counters(event: AnyEvent) -> tuple[Counter, ...]:
    """Return the counters whose limit totals name the event, each once; none for a correction."""
    if event.kind is Kind.CORRECTION:
        return ()
    day = day_of(event)
    return tuple(Counter(day, group_id, event.model_slug) for group_id in dict.fromkeys(event.charged_groups))


def increments(events: Iterable[AnyEvent]) -> Increments:
    """Sum what `events` add. The order of the events does not matter."""
    daily: dict[Counter, DailyIncrement] = {}
    limits: dict[Counter, LimitIncrement] = {}
    for own, alike in _by_counter(events).items():
        daily[own] = daily_of(alike)
        for group_id, charging in _by_charged_group(alike).items():
            counter = Counter(own.day, group_id, own.model_slug)
            limits[counter] = limits.get(counter, LimitIncrement()).plus(_limit(charging))
    return Increments(daily, limits)


def _by_counter(events: Iterable[AnyEvent]) -> Mapping[Counter, list[AnyEvent]]:
    alike: dict[Counter, list[AnyEvent]] = defaultdict(list)
    for event in events:
        alike[daily_counter(event)].append(event)
    return alike


def _by_charged_group(events: Iterable[AnyEvent]) -> Mapping[str, list[AnyEvent]]:
    charging: dict[str, list[AnyEvent]] = defaultdict(list)
    for event in events:
        if event.kind is Kind.USAGE:
            for group_id in dict.fromkeys(event.charged_groups):
                charging[group_id].append(event)
    return charging


def daily_of(events: Iterable[AnyEvent]) -> DailyIncrement:
    """Sum what events, all of one counter, add to its daily usage."""
    requests = prompt = completion = cached = 0
    corrections = corrected_prompt = corrected_completion = 0
    for event in events:
        tokens = event.tokens
        if event.kind is Kind.CORRECTION:
            corrections += 1
            corrected_prompt += tokens.input_tokens
            corrected_completion += tokens.output_tokens
        else:
            requests += 1
            prompt += tokens.input_tokens
            completion += tokens.output_tokens
            cached += tokens.cached_input_tokens
    return DailyIncrement(requests, prompt, completion, cached, corrections, corrected_prompt, corrected_completion)


def _limit(events: list[AnyEvent]) -> LimitIncrement:
    prompt = sum(event.tokens.input_tokens for event in events)
    completion = sum(event.tokens.output_tokens for event in events)
    cost = sum(event.cost for event in events)
    return LimitIncrement(len(events), prompt + completion, prompt, completion, cost)
