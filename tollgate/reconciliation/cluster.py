"""The accounts of a cluster: the spools as its proxies report them, the topic, and the shared database (contract 4).

How it stays exact while load goes on:

- The cut is taken in the order that an event goes: the proxies' marks first, then the ends of the topic's logs. So
  every event that a proxy calls acknowledged lies before those ends: metering that has passed them has counted it.
- The ledger, the daily usage, the deliveries and all positions are read in one transaction. It holds of each partition
  exactly the records below the position, so the topic is read up to there, and no further.
- Intake's positions are not metering's. What lies between the two is read from the topic, and added or taken off.
- Of what a proxy reported as unpublished, that is taken off which the ledger had by then: it is known by its numbers.
- Gaps are looked for up to the acknowledged mark. Behind it, numbers may reach the ledger in another order.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

from sqlalchemy import Connection

from control.store import corrections, published
from domain import days
from domain.ledger_days import Days
from metering.store import day_partitions, events
from metering.store import positions as metering_positions
from metering.store import transaction as metering_store
from runtime.kafka.reader import LogBounds
from schemas.spool import SpoolFigures
from schemas.topics import USAGE_EVENTS
from schemas.usage import UsageEvent
from tollgate.installation import Installation
from tollgate.reconciliation import stored
from tollgate.reconciliation.accounts import AccountSums, Figures, Period, TopicFigures, WorkspaceDay, starts_at
from tollgate.reconciliation.compare import ReaderPositions, ReconcileError, View
from tollgate.reconciliation.topic import Take
from tollgate.reconciliation.topic_sums import TopicSums
from tollgate.reconciliation.upstream_account import Pairing
from webhooks.store import deliveries as webhooks_store

LATE_S = 10.0
"""How long a request that the upstream has served may take to the ledger, to count as under way."""

_LATE_POLL_S = 0.5
_LACKING = 5000
_READ = 1000


class Spools(Protocol):
    """The proxies' reports."""

    def ask(self) -> Sequence[SpoolFigures]:
        """Return every row. Raise ReconcileError."""


class Events(Protocol):
    """The topic of the usage events; as `topic.Topic`."""

    def logs(self) -> Mapping[int, LogBounds]:
        """Return where each partition's log begins and ends now."""

    def read(self, since: datetime, until: Mapping[int, int], take: Take) -> datetime | None:
        """Hand over records; return before which moment some may be gone."""


class _Marks(NamedTuple):
    """One instance: up to which number all is in the topic, and its last number at the cut; both inclusive."""

    acknowledged: int
    last: int


@dataclass(frozen=True, slots=True)
class _Cut:
    logs: Mapping[int, LogBounds]
    producers: Mapping[str, _Marks]
    unpublished: Mapping[WorkspaceDay, Figures]
    """What the producers hold between their two marks."""


class _Positions(NamedTuple):
    """Metering's and intake's next offset of each partition."""

    counted: Mapping[int, int]
    taken: Mapping[int, int]
    open_days: Days
    """The days that the ledger takes."""

    def waiting(self, logs: Mapping[int, LogBounds]) -> int:
        """Return how many records before the cut one of the two has not passed."""
        behind = (log.end - min(self.counted[one], self.taken[one]) for one, log in logs.items())
        return sum(max(0, records) for records in behind)


class ClusterAccounts:
    """Implements `Accounts` over Kafka, PostgreSQL and the proxies' ops ports."""

    def __init__(
        self,
        place: Installation,
        period: Period,
        spools: Spools,
        events: Events,
        ignored: Collection[str] = (),
        *,
        late_s: float = LATE_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._place = place
        self._period = period
        self._spools = spools
        self._events = events
        self._ignored = frozenset(ignored)
        self._late_s = late_s
        self._pause = pause
        self._cut = _Cut({}, {}, {})

    def take_cut(self) -> None:
        """Ask the producers for their marks, then Kafka for the logs' ends. Raise ReconcileError.

        Whoever is in the ledger before the proxies are asked must be among what they report.
        """
        seen = self._place.read(lambda connection: stored.instances(connection, self._period))
        producers, unpublished = _reported(self._spools.ask())
        own_marks, own_figures = self._place.read(_outbox)
        producers |= own_marks
        unknown = sorted(seen - producers.keys() - self._ignored)
        if unknown:
            names = ", ".join(unknown)
            raise ReconcileError(
                f"no proxy that was asked reports {names}, which the ledger knows of these days: "
                "name its proxy's ops port with --proxy, or leave it out with --ignore"
            )
        for place, figures in own_figures.items():
            unpublished[place] = unpublished.get(place, Figures()).plus(figures)
        self._cut = _Cut(self._events.logs(), producers, unpublished)

    def progress(self) -> ReaderPositions:
        """Ask the positions."""
        positions = self._place.read(self._positions)
        return ReaderPositions(served=True, passed=not positions.waiting(self._cut.logs))

    def view(self, pairing: Pairing | None, progress: ReaderPositions) -> View:
        """Read the database in one transaction, then the topic up to where that one had come."""
        view, positions = self._place.read(partial(self._look, pairing=pairing))
        with TopicSums(self._period, *positions) as sums:
            gone_before = self._read_topic(positions, sums)
            figures, lag = sums.sums()
            view.topic = TopicFigures(figures, gone_before, sums.unreadable, tuple(sums.named))
        view.untaken = {
            place: view.unpublished.get(place, Figures()).sums.plus(lag.get(place, AccountSums()))
            for place in {*view.unpublished, *lag}
        }
        return view

    def forgive(self, pairing: Pairing) -> None:
        """Look in the ledger again, for a while: a served request gets there within moments, unless it is lost."""
        until = time.monotonic() + self._late_s
        while lacking := pairing.lacking(_LACKING):
            look = partial(stored.request_ids, period=self._period, which=events.of_requests(lacking))
            pairing.forgive(self._place.read(look))
            if time.monotonic() >= until:
                return
            self._pause(_LATE_POLL_S)

    def apply_corrections(self, pairing: Pairing) -> None:
        """Ask the outbox for the corrections."""
        self._place.read(lambda connection: stored.apply_corrections(connection, pairing))

    def _look(self, connection: Connection, pairing: Pairing | None) -> tuple[View, _Positions]:
        positions, period, producers = self._positions(connection), self._period, self._cut.producers
        days = (period.first, period.last)
        if pairing is not None:
            pairing.add(stored.usage_events(connection, period))
        arrived = stored.by_place(events.tallies(connection, *days, events.between(_bounds(producers))))
        acknowledged = {instance: both.acknowledged for instance, both in producers.items()}
        seen = stored.instances(connection, period)
        late = dict.fromkeys(seen - producers.keys() - self._ignored, 0)  # began behind the cut: left to the next run
        view = View(
            ledger=stored.by_place(events.tallies(connection, *days)),
            daily=stored.by_place(metering_store.tallies(connection, *days)),
            deliveries=stored.deliveries(connection, period),
            unpublished=_less(self._cut.unpublished, arrived, period),
            gaps=stored.gaps(connection, period, acknowledged, acknowledged | late),
            waiting=positions.waiting(self._cut.logs),
        )
        return view, positions

    def _positions(self, connection: Connection) -> _Positions:
        """Return the positions; where nothing of a partition was passed yet, its log's beginning."""
        logs = self._cut.logs
        counted = {one: metering_positions.position(connection, USAGE_EVENTS, one) for one in logs}
        taken = {one: webhooks_store.position(connection, USAGE_EVENTS, one) for one in logs}
        return _Positions(
            {one: log.begin if (at := counted[one]) is None else at for one, log in logs.items()},
            {one: log.begin if (at := taken[one]) is None else at for one, log in logs.items()},
            day_partitions.open_days(connection),
        )

    def _read_topic(self, positions: _Positions, sums: TopicSums) -> datetime | None:
        period = self._period
        if period.last < period.whole_from:
            return None
        until = {one: max(positions.counted[one], positions.taken[one]) for one in self._cut.logs}
        return self._events.read(starts_at(max(period.first, period.whole_from)), until, sums.take)


def _reported(rows: Sequence[SpoolFigures]) -> tuple[dict[str, _Marks], dict[WorkspaceDay, Figures]]:
    producers: dict[str, _Marks] = {}
    unpublished: dict[WorkspaceDay, Figures] = {}
    for row in rows:
        producers[row.instance] = _Marks(row.acknowledged_through, row.last_sequence)
        if row.workspace_id is not None and row.day is not None:
            place = (row.workspace_id, row.day)
            own = Figures(row.requests, row.input_tokens, row.output_tokens)
            unpublished[place] = unpublished.get(place, Figures()).plus(own)
    return producers, unpublished


def _outbox(connection: Connection) -> tuple[dict[str, _Marks], dict[WorkspaceDay, Figures]]:
    """Return the marks of the corrections' outbox, and what it holds between them."""
    last = corrections.last(connection)
    if last is None:
        return {}, {}
    acknowledged = published.read(connection, published.CORRECTIONS)
    unpublished: dict[WorkspaceDay, Figures] = {}
    for event in _corrections(connection, acknowledged + 1):
        place = (event.workspace_id, days.day_of(event))
        unpublished[place] = unpublished.get(place, Figures()).plus(Figures.of(event))
    return {last.instance: _Marks(acknowledged, last.sequence)}, unpublished


def _corrections(connection: Connection, first: int) -> Iterator[UsageEvent]:
    while events := corrections.read(connection, first, _READ):
        yield from events
        first = events[-1].producer.sequence + 1


def _bounds(producers: Mapping[str, _Marks]) -> dict[str, tuple[int, int]]:
    return {instance: (both.acknowledged, both.last) for instance, both in producers.items()}


def _less(
    figures: Mapping[WorkspaceDay, Figures], other: Mapping[WorkspaceDay, Figures], period: Period
) -> dict[WorkspaceDay, Figures]:
    """Take `other` off the figures of the period's days; leave out what is nothing."""
    places = {place for place in figures if period.first <= place[1] <= period.last}
    left = {place: figures[place].plus(other.get(place, Figures()), -1) for place in places}
    return {place: rest for place, rest in left.items() if any(rest)}
