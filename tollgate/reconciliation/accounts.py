"""The accounts that a reconciliation lays side by side, and what their figures must satisfy (spec section 4).

Never reads anything: it is handed the figures.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from metering.ledger import Gap
from tollgate.reconciliation.upstream_account import Comparison
from webhooks.core.values import Status

Place = tuple[str, date]
"""A workspace and a UTC day."""


class Figures(NamedTuple):
    """Sums over events; corrections apart, their tokens signed."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    corrections: int = 0
    corrected_input_tokens: int = 0
    corrected_output_tokens: int = 0

    def plus(self, other: "Figures", times: int = 1) -> "Figures":
        """Add `other`, or take it off with -1."""
        return Figures(*(own + times * others for own, others in zip(self, other, strict=True)))

    @property
    def sums(self) -> "Sums":
        """The same with corrections in the sums."""
        return Sums(
            self.requests + self.corrections,
            self.input_tokens + self.corrected_input_tokens,
            self.output_tokens + self.corrected_output_tokens,
        )


class Sums(NamedTuple):
    """Sums over events, corrections among them."""

    events: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: "Sums", times: int = 1) -> "Sums":
        """Add `other`, or take it off with -1."""
        return Sums(*(own + times * others for own, others in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Line:
    """One workspace and UTC day as every account has it."""

    workspace_id: str
    day: date
    unpublished: Figures
    """Still in a spool or the outbox, and not in the ledger."""
    ledger: Figures
    daily: Figures
    deliveries: Mapping[Status, Sums] | None
    """None: past their retention."""
    untaken: Sums
    """Still in a spool or the outbox, and in no delivery."""

    @property
    def daily_difference(self) -> Figures:
        """What daily usage has above the ledger."""
        return self.daily.plus(self.ledger, -1)

    @property
    def delivery_difference(self) -> Sums | None:
        """What deliveries have above all events there are; None where they are not compared."""
        if self.deliveries is None:
            return None
        known = self.ledger.plus(self.unpublished).sums
        return sum_up([*self.deliveries.values(), self.untaken]).plus(known, -1)

    @property
    def agrees(self) -> bool:
        """Whether all accounts agree."""
        return not (any(self.daily_difference) or any(self.delivery_difference or ()))


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared and what came of it."""

    from_day: date
    to_day: date
    expired_to: date | None
    """Up to this day, inclusive, the ledger is past its retention: not compared."""
    served: bool
    passed: bool
    """Whether metering and intake had passed the cut."""
    waiting: int
    """Events before the cut that they had not."""
    in_flight: int
    """Requests that were in flight when the server died; 0 where it runs. The next start bills them."""
    lines: tuple[Line, ...]
    gaps: tuple[Gap, ...]
    upstream: Comparison | None

    @property
    def agrees(self) -> bool:
        """Whether there is no difference, and a server that runs has kept up."""
        kept_up = self.passed or not self.served
        upstream = self.upstream is None or self.upstream.agrees
        return kept_up and upstream and not self.gaps and all(line.agrees for line in self.lines)


def sum_up(all_sums: Iterable[Sums]) -> Sums:
    """Add sums."""
    total = Sums()
    for sums in all_sums:
        total = total.plus(sums)
    return total
