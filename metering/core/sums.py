"""What the new usage events of a batch add to daily usage and to limit totals (contract 4).

Rules:

- Daily usage: the key's own group alone; corrections apart, in their own figures and nowhere else.
- Limit totals: one request to each charged group, with its prompt plus completion tokens; corrections add nothing.
- The day is the UTC day of the event's own timestamp, however late the event comes.
"""

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
    daily: dict[Counter, list[int]] = {}
    limits: dict[Counter, list[int]] = {}
    for event in events:
        day, slug = day_of(event), event.model_slug
        add_daily(daily.setdefault(Counter(day, event.group_id, slug), [0] * len(DailyIncrement._fields)), event)
        if event.kind is Kind.USAGE:
            for group_id in dict.fromkeys(event.charged_groups):
                _add_limit(limits.setdefault(Counter(day, group_id, slug), [0] * len(LimitIncrement._fields)), event)
    return Increments(
        {counter: DailyIncrement._make(added) for counter, added in daily.items()},
        {counter: LimitIncrement._make(added) for counter, added in limits.items()},
    )


def add_daily(added: list[int], event: AnyEvent) -> None:
    """Add an event to what its counter's daily usage grows by, in the order of `DailyIncrement`."""
    tokens = event.tokens
    if event.kind is Kind.CORRECTION:
        added[4] += 1
        added[5] += tokens.input_tokens
        added[6] += tokens.output_tokens
    else:
        added[0] += 1
        added[1] += tokens.input_tokens
        added[2] += tokens.output_tokens
        added[3] += tokens.cached_input_tokens


def _add_limit(added: list[int], event: AnyEvent) -> None:
    prompt, completion = event.tokens.input_tokens, event.tokens.output_tokens
    added[0] += 1
    added[1] += prompt + completion
    added[2] += prompt
    added[3] += completion
    added[4] += event.cost
