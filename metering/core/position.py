"""How a batch lies to the position that was committed for its partition (design 3.4).

Never trusts the reader's own idea of the position: the one in the database is the truth.
"""

from schemas.topics import UsageBatch
from schemas.usage import UsageEvent


class PositionError(Exception):
    """The batch may not be applied, nor its totals published."""


class BeyondPositionError(PositionError):
    """The batch begins beyond the position: applying it would lose what lies between. `position` is next to read."""

    def __init__(self, batch: UsageBatch, position: int) -> None:
        super().__init__(
            f"{batch.topic}/{batch.partition}: the batch begins at {batch.first_offset}, beyond the position {position}"
        )
        self.position = position


class PositionLostError(PositionError):
    """Another worker has moved the position: it owns the partition now."""

    def __init__(self, batch: UsageBatch) -> None:
        super().__init__(f"{batch.topic}/{batch.partition}: another worker has moved the position")


def unseen(batch: UsageBatch, position: int | None) -> tuple[UsageEvent, ...]:
    """Give the events at or above `position` (None: nothing of the partition was counted yet).

    Where offsets were skipped inside the batch, so that an event's own is unknown, a batch that straddles the
    position is given whole: the ledger's keys tell its duplicates. Raises BeyondPositionError.
    """
    if position is None or position == batch.first_offset:
        return batch.events
    if batch.first_offset > position:
        raise BeyondPositionError(batch, position)
    if batch.next_offset <= position:
        return ()
    dense = len(batch.events) == batch.next_offset - batch.first_offset
    return batch.events[position - batch.first_offset :] if dense else batch.events
