"""Compares what was counted with what was spooled, summed up, delivered, and served by the upstream (spec section 4).

Never changes anything, and never looks behind its cut: so its figures are exact while traffic goes on.

How it stays exact:

- The cut is each spool's and the outbox's last sequence at the start. An event is compared if its (instance, sequence)
  lies before it, wherever it is found.
- The ledger, the daily usage, the deliveries and both positions are read in one transaction. What the ledger holds
  behind the cut is taken off the daily usage and the deliveries, which know no sequences.
- Intake may be ahead of metering: such a view is taken again, for its deliveries name events that the ledger lacks.
- Events before the cut that metering or intake have not passed are read from the disk; where they move meanwhile, all
  is read again.
"""

import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Connection
from ulid import ULID

from control.store import corrections
from metering import ledger
from metering import store as metering_store
from metering.core import rollup
from metering.ledger import Gap, Tally
from schemas.usage import Kind, UsageEvent
from tollgate import workplace
from tollgate.reconciliation import cut as cuts
from tollgate.reconciliation.accounts import Figures, Line, Place, Report, Sums
from tollgate.reconciliation.cut import Cut, Standing
from tollgate.reconciliation.upstream_account import Comparison, Event, Pairing
from tollgate.workplace import Workplace
from webhooks import store as webhooks_store
from webhooks.core.values import Status

WAIT_S = 60.0
"""How long metering and intake have to pass the cut."""

LEDGER_DAYS = 100
DELIVERY_DAYS = 35
"""How many days back the ledger and the deliveries are there to be compared (spec 2.5, 4)."""

_POLL_S = 0.1
_VIEWS = 40
_ROWS = 1000


class ReconcileError(Exception):
    """Nothing could be compared; the message is one line that says why."""


@dataclass(slots=True)
class _View:
    """What one transaction saw, and what the disk held beyond it."""

    standings: Sequence[Standing]
    ledger: Mapping[Place, Figures] = field(default_factory=dict)
    daily: Mapping[Place, Figures] = field(default_factory=dict)
    deliveries: Mapping[Place, dict[Status, Sums]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    unpublished: dict[Place, Figures] = field(default_factory=lambda: defaultdict(Figures))
    untaken: dict[Place, Figures] = field(default_factory=lambda: defaultdict(Figures))
    waiting: int = 0


class Reconciliation:
    """One run over the days from `from_day` to `to_day`, both inclusive."""

    def __init__(
        self,
        place: Workplace,
        from_day: date,
        to_day: date,
        now: datetime,
        *,
        wait_s: float = WAIT_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._place = place
        self._asked = (from_day, to_day)
        self._from_day = max(from_day, now.date() - timedelta(days=LEDGER_DAYS))
        self._to_day = to_day
        self._today = now.date()
        self._wait_s = wait_s
        self._pause = pause

    def run(self, account: Path | None = None) -> Report:
        """Compare, the upstream's `account` too where it is given.

        Raises ReconcileError, AccountError and WorkplaceError.
        """
        try:
            cut = cuts.take(self._place)
            served, passed = self._await(cut)
            if account is None:
                return self._report(self._view(cut, None, passed=passed), None, served=served, passed=passed)
            with Pairing(self._from_day, self._to_day) as pairing:
                pairing.read(account)
                view = self._view(cut, pairing, passed=passed)
                return self._report(view, self._pair(cut, pairing), served=served, passed=passed)
        except sqlite3.Error as error:
            raise ReconcileError(f"{self._place.folder} cannot be read: {error}") from None

    def _await(self, cut: Cut) -> tuple[bool, bool]:
        """Wait until both readers have passed the cut; say whether a server runs, and whether they have."""
        until = time.monotonic() + self._wait_s
        while True:
            served = workplace.is_served(self._place.folder)
            standings = self._place.read(lambda connection: cuts.standings(connection, cut))
            passed = all(standing.passed for standing in standings)
            if passed or not served or time.monotonic() >= until:
                return served, passed
            self._pause(_POLL_S)

    def _view(self, cut: Cut, pairing: Pairing | None, *, passed: bool) -> _View:
        for _ in range(_VIEWS):
            view = self._place.read(partial(self._look, cut=cut, pairing=pairing))
            if view is not None and self._add_waiting(view, pairing):
                return view
            if not passed:  # one reader stands still before the cut: what the other took behind it cannot be told apart
                cut = cuts.take(self._place)
            self._pause(_POLL_S)
        raise ReconcileError("metering lags behind intake, so that nothing can be compared now; try again")

    def _look(self, connection: Connection, cut: Cut, pairing: Pairing | None) -> _View | None:
        """Read every account in one transaction; None where deliveries name what the ledger does not have yet."""
        standings = cuts.standings(connection, cut)
        if not all(standing.comparable for standing in standings):
            return None
        days = (self._from_day, self._to_day)
        before = ledger.within(cut.marks)
        all_rows = _by_place(ledger.tallies(connection, *days))
        counted = _by_place(ledger.tallies(connection, *days, before))
        daily = _by_place(metering_store.tallies(connection, *days))
        later = {place: figures.plus(counted.get(place, Figures()), -1) for place, figures in all_rows.items()}
        if pairing is not None:
            pairing.forget_events()
            pairing.add(self._stored(connection, cut))
        return _View(
            standings,
            ledger=counted,
            daily={place: figures.plus(later.get(place, Figures()), -1) for place, figures in daily.items()},
            deliveries=self._deliveries(connection, cut),
            gaps=self._gaps(connection, standings),
        )

    def _stored(self, connection: Connection, cut: Cut) -> Iterator[Event]:
        """Stream the ledger's usage events. A day more at both ends: a request may end on another day than it began."""
        day = timedelta(days=1)
        columns = ledger.USAGE_EVENT.c
        query = ledger.rows(self._from_day - day, self._to_day + day, ledger.within(cut.marks))
        wanted = query.where(columns.kind == Kind.USAGE.value).with_only_columns(
            columns.request_id,
            columns.idempotency_key,
            columns.workspace_id,
            columns.day,
            columns.input_tokens,
            columns.output_tokens,
            columns.usage_source,
            columns.outcome,
        )
        for row in connection.execute(wanted, execution_options={"yield_per": _ROWS}):
            yield Event._make(row)

    def _deliveries(self, connection: Connection, cut: Cut) -> Mapping[Place, dict[Status, Sums]]:
        first = max(self._from_day, self._today - timedelta(days=DELIVERY_DAYS))
        columns = ledger.USAGE_EVENT.c
        behind = ledger.rows(first, self._to_day, ~ledger.within(cut.marks))
        among = behind.with_only_columns(columns.workspace_id, columns.idempotency_key)
        found: dict[Place, dict[Status, Sums]] = defaultdict(lambda: dict.fromkeys(Status, Sums()))
        for sign, only in ((1, None), (-1, among)):
            for tally in webhooks_store.tallies(connection, first, self._to_day, only):
                sums = found[tally.workspace_id, tally.day]
                own = Sums(tally.events, tally.input_tokens, tally.output_tokens)
                sums[tally.status] = sums[tally.status].plus(own, sign)
        return found

    def _gaps(self, connection: Connection, standings: Sequence[Standing]) -> tuple[Gap, ...]:
        """Look for gaps before the cut; up to what metering says it has counted, where the days reach to today."""
        counted = {one.source.instance: min(one.counted - 1, one.source.end) for one in standings}
        ends = {one.source.instance: one.source.end for one in standings}
        found = ledger.gaps(connection, self._from_day, self._to_day, counted if self._to_day >= self._today else None)
        kept_from = self._today - timedelta(days=LEDGER_DAYS)
        return tuple(
            gap
            for gap in found
            if gap.first <= ends.get(gap.instance, gap.first)
            and not (gap.first == 1 and _older(gap.instance, kept_from))
        )

    def _add_waiting(self, view: _View, pairing: Pairing | None) -> bool:
        """Add what the disk holds before the cut; False where it moved while it was read."""
        if all(standing.passed for standing in view.standings):
            return True
        for standing in view.standings:
            source, following = standing.source, min(standing.counted, standing.taken)
            for event in cuts.waiting(self._place, standing):
                view.waiting += 1
                view.gaps += _missing(source.instance, following, event.producer.sequence)
                following = event.producer.sequence + 1
                self._place_waiting(view, standing, event, pairing)
            view.gaps += _missing(source.instance, following, source.end + 1)
        cut = Cut(tuple(standing.source for standing in view.standings), {})
        return self._place.read(lambda connection: cuts.standings(connection, cut)) == view.standings

    def _place_waiting(self, view: _View, standing: Standing, event: UsageEvent, pairing: Pairing | None) -> None:
        day, sequence = rollup.day_of(event), event.producer.sequence
        place = (event.workspace_id, day)
        if pairing is not None and sequence >= standing.counted and event.kind is Kind.USAGE:
            pairing.add([_event(event, day)])
        if not self._from_day <= day <= self._to_day:
            return
        if sequence >= standing.counted:
            view.unpublished[place] = view.unpublished[place].plus(_figures(event))
        if sequence >= standing.taken:
            view.untaken[place] = view.untaken[place].plus(_figures(event))

    def _pair(self, cut: Cut, pairing: Pairing) -> Comparison:
        """Let go what is under way and what corrections have settled, and compare the rest."""
        day = timedelta(days=1)
        columns = ledger.USAGE_EVENT.c
        pairing.forgive(cuts.under_way(self._place, cut))
        behind = ledger.rows(self._from_day - day, self._today + day, ~ledger.within(cut.marks))
        query = behind.with_only_columns(columns.request_id)

        def rest(connection: Connection) -> None:
            pairing.forgive(connection.execute(query, execution_options={"yield_per": _ROWS}).scalars())
            pairing.settle(lambda keys: corrections.corrected(connection, keys))

        self._place.read(rest)
        return pairing.compare()

    def _report(self, view: _View, upstream: Comparison | None, *, served: bool, passed: bool) -> Report:
        places = {*view.ledger, *view.daily, *view.deliveries, *view.unpublished, *view.untaken}
        kept_from = self._today - timedelta(days=DELIVERY_DAYS)
        nothing = dict.fromkeys(Status, Sums())
        lines = tuple(
            Line(
                *place,
                unpublished=view.unpublished.get(place, Figures()),
                ledger=view.ledger.get(place, Figures()),
                daily=view.daily.get(place, Figures()),
                deliveries=view.deliveries.get(place, nothing) if place[1] >= kept_from else None,
                untaken=view.untaken.get(place, Figures()).sums,
            )
            for place in sorted(places)
        )
        asked_from, asked_to = self._asked
        expired_to = min(self._from_day - timedelta(days=1), asked_to) if self._from_day > asked_from else None
        left = 0 if served else sum(1 for _ in cuts.in_flight(self._place))
        return Report(*self._asked, expired_to, served, passed, view.waiting, left, lines, view.gaps, upstream)


def _older(instance: str, day: date) -> bool:
    """Tell whether an instance was minted before `day`, so that its first numbers may be past retention."""
    try:
        return ULID.from_str(instance).datetime.date() < day
    except ValueError:
        return False


def _missing(instance: str, following: int, found: int) -> tuple[Gap, ...]:
    """Give the gap before `found` where `following` was the number to come."""
    return (Gap(instance, following, found - 1),) if found > following else ()


def _by_place(tallies: Iterable[Tally]) -> dict[Place, Figures]:
    return {
        (tally.workspace_id, tally.day): Figures(*(getattr(tally, name) for name in Figures._fields))
        for tally in tallies
    }


def _figures(event: UsageEvent) -> Figures:
    tokens = event.tokens
    if event.kind is Kind.CORRECTION:
        return Figures(0, 0, 0, 1, tokens.input_tokens, tokens.output_tokens)
    return Figures(1, tokens.input_tokens, tokens.output_tokens)


def _event(event: UsageEvent, day: date) -> Event:
    return Event(
        event.request_id,
        event.idempotency_key,
        event.workspace_id,
        day,
        event.tokens.input_tokens,
        event.tokens.output_tokens,
        event.usage_source.value,
        event.outcome.value,
    )
