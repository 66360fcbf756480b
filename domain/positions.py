"""How a batch lies to the position that was committed for its partition (counting 4).

Never trusts the reader's own idea of the position: the one in the database is the truth.
"""

from datetime import date, datetime, timedelta
from typing import NamedTuple

from domain.sources import EventBatch
from schemas.spooled import AnyEvent


class PositionError(Exception):
    """The batch may not be applied, nor its totals published."""


class BeyondPositionError(PositionError):
    """The batch begins beyond the position: applying it would lose what lies between. `position` is next to read."""

    def __init__(self, batch: EventBatch, position: int) -> None:
        super().__init__(
            f"{batch.topic}/{batch.partition}: the batch begins at {batch.first_offset}, beyond the position {position}"
        )
        self.position = position


class PositionLostError(PositionError):
    """Another worker has moved the position: it owns the partition now."""

    def __init__(self, batch: EventBatch) -> None:
        super().__init__(f"{batch.topic}/{batch.partition}: another worker has moved the position")


class LogShrunkError(Exception):
    """The log ends before the position: what is written to it from now on would pass for counted."""

    def __init__(self, place: str, position: int, end: int) -> None:
        super().__init__(
            f"{place}: the position {position} lies beyond the log's end {end}: the topic was made anew or has lost "
            "records; once you know which, delete the partition's row of metering_position, and all that the topic "
            "holds is read again (an event's key keeps it from counting twice)"
        )


class Start(NamedTuple):
    """Where a reader begins: its first batch at `position`, its first record at or above `offset`.

    `offset` is above `position` where the log no longer holds what lies between; it is gone for good.
    """

    position: int
    offset: int


class Progress(NamedTuple):
    """How far a partition is counted, and how far its totals are told."""

    next_offset: int
    told_offset: int | None
    """Every change below was told; None: of nothing is it known."""
    told_end: int | None
    """Where the partition of the decisions ended then."""
    told_at: datetime | None
    told_from_day: date | None
    """The oldest day that was changed since, where that is older than the day before."""


def untold_from(progress: Progress) -> date:
    """Return the oldest day of which something may have changed and not been told."""
    if progress.told_at is None:
        return date.min
    day_before = progress.told_at.date() - timedelta(days=1)
    return min(progress.told_from_day or day_before, day_before)


def start(place: str, position: int | None, begin: int, end: int) -> Start:
    """Say where to read a log that begins at `begin` (inclusive) and ends at `end` (exclusive).

    Where nothing was counted yet (None) the log's present beginning begins the partition: the ledger cannot hold what
    nobody has any more. Raise LogShrunkError; `place` names the partition in it.
    """
    if position is None:
        return Start(begin, begin)
    check_end(place, position, end)
    return Start(position, max(position, begin))


def check_end(place: str, position: int | None, end: int) -> None:
    """Raise LogShrunkError where the position lies beyond the log's end; `end` must have been read after it."""
    if position is not None and position > end:
        raise LogShrunkError(place, position, end)


def unseen(batch: EventBatch, position: int | None) -> tuple[AnyEvent, ...]:
    """Return the events at or above `position` (None: nothing of the partition was counted yet).

    Where offsets were skipped inside the batch, so that an event's own is unknown, a batch that straddles the
    position is given whole: the ledger's keys tell its duplicates. Raise BeyondPositionError.
    """
    if position is None or position == batch.first_offset:
        return batch.events
    if batch.first_offset > position:
        raise BeyondPositionError(batch, position)
    if batch.next_offset <= position:
        return ()
    dense = len(batch.events) == batch.next_offset - batch.first_offset
    return batch.events[position - batch.first_offset :] if dense else batch.events
