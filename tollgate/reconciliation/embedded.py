"""The accounts of an embedded server: its spools and slots on the disk, its database, and no topic (contract 4).

How it stays exact:

- The cut is each spool's and the outbox's last sequence at the start. An event is compared if its (instance, sequence)
  lies before it, wherever it is found.
- The ledger, the daily usage, the deliveries and both positions are read in one transaction. What the ledger holds
  behind the cut is taken off the daily usage and the deliveries, which know no sequences.
- Intake may be ahead of metering: such a view is taken again, for its deliveries name events that the ledger lacks.
- Events before the cut that metering or intake have not passed are read from the disk; where they move meanwhile, all
  is read again.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial

from sqlalchemy import Connection

from domain import days
from metering.store import events
from metering.store import transaction as metering_store
from metering.store.events import Gap
from schemas.spooled import AnyEvent
from schemas.usage import Kind
from tollgate import installation
from tollgate.installation import Installation
from tollgate.reconciliation import compare, stored
from tollgate.reconciliation import cut as cuts
from tollgate.reconciliation.accounts import Figures, Period, WorkspaceDay
from tollgate.reconciliation.compare import ReaderPositions, ReconcileError, View
from tollgate.reconciliation.cut import Cut, Standing
from tollgate.reconciliation.upstream_account import Event, Pairing

_VIEWS = 40


@dataclass(slots=True)
class _Waiting:
    """What the disk holds before the cut that metering or intake have not passed."""

    unpublished: dict[WorkspaceDay, Figures] = field(default_factory=lambda: defaultdict(Figures))
    untaken: dict[WorkspaceDay, Figures] = field(default_factory=lambda: defaultdict(Figures))
    gaps: tuple[Gap, ...] = ()
    count: int = 0


class EmbeddedAccounts:
    """Implements `Accounts` over a data directory."""

    def __init__(self, place: Installation, period: Period, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._place = place
        self._period = period
        self._pause = pause
        self._cut = Cut((), {})

    def take_cut(self) -> None:
        """Note where each spool and the outbox end."""
        self._cut = cuts.take(self._place)

    def progress(self) -> ReaderPositions:
        """Ask the positions, and whether the directory is served."""
        served = installation.is_served(self._place.folder)
        standings = self._place.read(lambda connection: cuts.standings(connection, self._cut))
        return ReaderPositions(served, all(standing.passed for standing in standings))

    def view(self, pairing: Pairing | None, progress: ReaderPositions) -> View:
        """Read every account in one transaction, and what waits from the disk."""
        for _ in range(_VIEWS):
            seen = self._place.read(partial(self._look, pairing=pairing))
            if seen is not None:
                view, standings = seen
                waiting = self._waiting(standings, pairing)
                if waiting is not None:
                    view.unpublished = waiting.unpublished
                    view.untaken = {place: figures.sums for place, figures in waiting.untaken.items()}
                    view.gaps += waiting.gaps
                    view.waiting = waiting.count
                    view.in_flight = 0 if progress.served else sum(1 for _ in cuts.in_flight(self._place))
                    return view
            if not progress.passed:
                # One reader stands still before the cut: what the other took behind it cannot be told apart.
                self.take_cut()
            self._pause(compare.POLL_S)
        raise ReconcileError("metering lags behind intake, so that nothing can be compared now; try again")

    def forgive(self, pairing: Pairing) -> None:
        """Look in slots, then in spools, then in the ledger: the way that a request takes."""
        pairing.forgive(cuts.under_way(self._place, self._cut))
        behind = ~events.within(self._cut.marks)
        self._place.read(lambda connection: pairing.forgive(stored.request_ids(connection, self._period, behind)))

    def apply_corrections(self, pairing: Pairing) -> None:
        """Ask the outbox for the corrections."""
        self._place.read(lambda connection: stored.apply_corrections(connection, pairing))

    def _look(self, connection: Connection, pairing: Pairing | None) -> tuple[View, Sequence[Standing]] | None:
        """Read every account in one transaction; None where deliveries name what the ledger does not have yet."""
        standings = cuts.standings(connection, self._cut)
        if not all(standing.comparable for standing in standings):
            return None
        days = (self._period.first, self._period.last)
        before = events.within(self._cut.marks)
        all_rows = stored.by_place(events.tallies(connection, *days))
        counted = stored.by_place(events.tallies(connection, *days, before))
        daily = stored.by_place(metering_store.tallies(connection, *days))
        later = {place: figures.plus(counted.get(place, Figures()), -1) for place, figures in all_rows.items()}
        if pairing is not None:
            pairing.forget_events()
            pairing.add(stored.usage_events(connection, self._period, before))
        passed_to = {one.source.instance: min(one.counted - 1, one.source.end) for one in standings}
        looked_to = {one.source.instance: one.source.end for one in standings}
        view = View(
            ledger=counted,
            daily={place: figures.plus(later.get(place, Figures()), -1) for place, figures in daily.items()},
            deliveries=stored.deliveries(connection, self._period, ~before),
            gaps=stored.gaps(connection, self._period, passed_to, looked_to),
        )
        return view, standings

    def _waiting(self, standings: Sequence[Standing], pairing: Pairing | None) -> _Waiting | None:
        """Read what the disk holds before the cut; None where it moved while it was read."""
        waiting = _Waiting()
        if all(standing.passed for standing in standings):
            return waiting
        for standing in standings:
            source, following = standing.source, min(standing.counted, standing.taken)
            for event in cuts.waiting(self._place, standing):
                waiting.count += 1
                waiting.gaps += _missing(source.instance, following, event.producer.sequence)
                following = event.producer.sequence + 1
                self._add(waiting, standing, event, pairing)
            waiting.gaps += _missing(source.instance, following, source.end + 1)
        cut = Cut(tuple(standing.source for standing in standings), {})
        unmoved = self._place.read(lambda connection: cuts.standings(connection, cut)) == standings
        return waiting if unmoved else None

    def _add(self, waiting: _Waiting, standing: Standing, event: AnyEvent, pairing: Pairing | None) -> None:
        day, sequence = days.day_of(event), event.producer.sequence
        place = (event.workspace_id, day)
        if pairing is not None and sequence >= standing.counted and event.kind is Kind.USAGE:
            pairing.add([_event(event, day)])
        if not self._period.first <= day <= self._period.last:
            return
        if sequence >= standing.counted:
            waiting.unpublished[place] = waiting.unpublished[place].plus(Figures.of(event))
        if sequence >= standing.taken:
            waiting.untaken[place] = waiting.untaken[place].plus(Figures.of(event))


def _missing(instance: str, following: int, found: int) -> tuple[Gap, ...]:
    """Return the gap before `found` where `following` was the number to come."""
    return (Gap(instance, following, found - 1),) if found > following else ()


def _event(event: AnyEvent, day: date) -> Event:
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
