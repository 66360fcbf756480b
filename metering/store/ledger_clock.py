"""The ledger's clock: what `recorded_at` is read from, and what readers hold the newest back by (ADR 22).

Never goes back, whatever its source does. Where the source was set back, the clock is ahead of it and goes at half the
speed until the source has caught up. How far it is ahead stands with each partition's position, so a new process, or
one on another machine, goes on with it.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection

from metering.store import positions

_CATCHING_UP = 0.5
"""As `runtime.clock` has it within a process."""

_UNDER_WAY = timedelta(seconds=1)
"""How much later another's transaction may have begun that this one sees already: no sign of a source set back."""

_TICK = timedelta(microseconds=1)
"""The least by which a batch is recorded behind what it found: a follower's place is never met again."""


class Moved(Protocol):
    """A partition's last move: when it was by this clock, and how far the clock was ahead of its source."""

    @property
    def recorded_at(self) -> datetime:
        """The moment by this clock."""

    @property
    def ahead_us(self) -> int:
        """Microseconds that it was ahead of its source."""


def now(connection: Connection, source: datetime) -> datetime:
    """Return the ledger's present where its source says `source`."""
    return _present(positions.every(connection).values(), source)


def next_moment(moved: Iterable[Moved], source: datetime) -> datetime:
    """Return when a batch is recorded that found the partitions `moved`: later than all that was recorded before."""
    found = list(moved)
    return max([_present(found, source), *(one.recorded_at + _TICK for one in found)])


def ahead(connection: Connection, source: datetime) -> timedelta:
    """Return by how much the ledger's clock is ahead of `source`; zero where it is not."""
    return now(connection, source) - source


def note_set_back(connection: Connection, source: datetime) -> bool:
    """Where the source was set back since a partition moved, note that its time passes from here on; tell whether so.

    Without it the clock would stand until each partition moves again, and what was recorded last stay held back.
    """
    certain = source + _UNDER_WAY
    behind = [place for place, one in positions.every(connection).items() if _source_of(one) > certain]
    if behind:
        moment = now(connection, source)
        positions.note_clock(connection, behind, moment, moment - source)
    return bool(behind)


def _present(moved: Iterable[Moved], source: datetime) -> datetime:
    return max([source, *(_reached(one, source) for one in moved)])


def _reached(one: Moved, source: datetime) -> datetime:
    """Return how far the clock has come since a move; where the source was set back since, it stands."""
    passed = max(source - _source_of(one), timedelta(0))
    return one.recorded_at + passed * _CATCHING_UP


def _source_of(one: Moved) -> datetime:
    return one.recorded_at - timedelta(microseconds=one.ahead_us)
