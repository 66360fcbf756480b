"""The accounts that a reconciliation lays side by side, and what their figures must satisfy (contract 4)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from domain import ledger_days
from domain.ledger_days import LATE_DAYS
from metering.store.events import Gap
from schemas.spooled import AnyEvent
from schemas.usage import Kind
from tollgate.reconciliation.upstream_account import Comparison
from webhooks.core.deliveries import Status

KEPT_DAYS = 35
"""How many days a delivery and a record of the topic are kept (contract 4, 5)."""

WorkspaceDay = tuple[str, date]
"""A workspace and a UTC day."""


class Figures(NamedTuple):
    """Sums over events; corrections apart, their tokens signed."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    corrections: int = 0
    corrected_input_tokens: int = 0
    corrected_output_tokens: int = 0

    @classmethod
    def of(cls, event: AnyEvent) -> "Figures":
        """Return the figures of one event."""
        tokens = event.tokens
        if event.kind is Kind.CORRECTION:
            return cls(0, 0, 0, 1, tokens.input_tokens, tokens.output_tokens)
        return cls(1, tokens.input_tokens, tokens.output_tokens)

    def plus(self, other: "Figures", times: int = 1) -> "Figures":
        """Add `other`, or take it off with -1."""
        return Figures(*(own + times * others for own, others in zip(self, other, strict=True)))

    @property
    def sums(self) -> "AccountSums":
        """The same with corrections in the sums."""
        return AccountSums(
            self.requests + self.corrections,
            self.input_tokens + self.corrected_input_tokens,
            self.output_tokens + self.corrected_output_tokens,
        )


class AccountSums(NamedTuple):
    """Sums over events, corrections among them."""

    events: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: "AccountSums", times: int = 1) -> "AccountSums":
        """Add `other`, or take it off with -1."""
        return AccountSums(*(own + times * others for own, others in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Period:
    """The UTC days that are compared, both ends inclusive, and what of them is still there."""

    asked: date
    last: date
    today: date
    ledger_days: int = LATE_DAYS
    """How many days the ledger keeps, today among them."""

    @property
    def kept_from(self) -> date:
        """The first day that the ledger keeps."""
        return ledger_days.first(self.today, self.ledger_days)

    @property
    def first(self) -> date:
        """The first day that is compared."""
        return max(self.asked, self.kept_from)

    @property
    def whole_from(self) -> date:
        """The first day whose deliveries and records are all there: one before it may be there in part."""
        return self.today - timedelta(days=KEPT_DAYS - 1)

    @property
    def expired_to(self) -> date | None:
        """Up to this day, inclusive, the ledger is past its retention: not compared."""
        return min(self.first - timedelta(days=1), self.last) if self.first > self.asked else None


class UnreadableRecord(NamedTuple):
    """A record of the topic that is no usage event."""

    partition: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class TopicFigures:
    """What the topic holds, each event once."""

    figures: Mapping[WorkspaceDay, Figures] = field(default_factory=dict)
    gone_before: datetime | None = None
    """Records may be gone that were written before this moment; None: none is gone."""
    unreadable: int = 0
    named: tuple[UnreadableRecord, ...] = ()
    """The first of the unreadable records."""

    def of(self, place: WorkspaceDay, ledger: Figures, first_day: date) -> Figures | None:
        """Return the figures of a place; None where its records are past their retention, wholly or in part.

        That is so before `first_day`, and where the topic holds less than the ledger of a day since whose beginning
        records have gone: the broker does not tell of which days they were.
        """
        own, day = self.figures.get(place, Figures()), place[1]
        since = starts_at(day)
        holds_less = own.requests < ledger.requests or own.corrections < ledger.corrections
        gone = day < first_day or (self.gone_before is not None and since < self.gone_before and holds_less)
        return None if gone else own


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One workspace and UTC day as every account has it."""

    workspace_id: str
    day: date
    unpublished: Figures
    """Still in a spool or the outbox, and not in the ledger."""
    ledger: Figures
    daily: Figures
    deliveries: Mapping[Status, AccountSums] | None
    """None: past their retention."""
    untaken: AccountSums
    """Still in a spool, the outbox or the topic, and in no delivery."""
    topic: Figures | None = None
    """None: past its retention, or there is no topic."""

    @property
    def daily_difference(self) -> Figures:
        """What daily usage has above the ledger."""
        return self.daily.plus(self.ledger, -1)

    @property
    def topic_difference(self) -> Figures | None:
        """What the topic has above the ledger; None where it is not compared."""
        return None if self.topic is None else self.topic.plus(self.ledger, -1)

    @property
    def delivery_difference(self) -> AccountSums | None:
        """What deliveries have above all events there are; None where they are not compared."""
        if self.deliveries is None:
            return None
        known = self.ledger.plus(self.unpublished).sums
        return sum_up([*self.deliveries.values(), self.untaken]).plus(known, -1)

    @property
    def agrees(self) -> bool:
        """Whether all accounts agree."""
        differences = (self.daily_difference, self.topic_difference or (), self.delivery_difference or ())
        return not any(map(any, differences))


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared and what came of it."""

    period: Period
    served: bool
    passed: bool
    """Whether metering and intake had passed the cut."""
    waiting: int
    """Events before the cut that they had not."""
    in_flight: int
    """Requests that were in flight when the server died; 0 where it runs. The next start bills them."""
    lines: tuple[AccountLine, ...]
    gaps: tuple[Gap, ...]
    upstream: Comparison | None
    topic: TopicFigures | None = None
    """None: there is no topic."""

    @property
    def agrees(self) -> bool:
        """Whether there is no difference, and a server that runs has kept up."""
        kept_up = self.passed or not self.served
        upstream = self.upstream is None or self.upstream.agrees
        return kept_up and upstream and not self.gaps and all(line.agrees for line in self.lines)


def starts_at(day: date) -> datetime:
    """Return the midnight UTC that begins `day`."""
    return datetime.combine(day, time(), UTC)


def sum_up(all_sums: Iterable[AccountSums]) -> AccountSums:
    """Add sums."""
    total = AccountSums()
    for sums in all_sums:
        total = total.plus(sums)
    return total
