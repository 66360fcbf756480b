"""How batches lie to the position."""

from datetime import date, timedelta

import pytest

from domain import positions
from domain.positions import Progress
from tests.unit.metering.factories import NOON, batch, event

EVENTS = (event(11), event(12), event(13))


def test_everything_is_unseen_where_nothing_was_counted_and_at_the_position() -> None:
    assert positions.unseen(batch(EVENTS, 11), None) == EVENTS
    assert positions.unseen(batch(EVENTS, 11), 11) == EVENTS


def test_what_lies_below_the_position_was_seen() -> None:
    assert positions.unseen(batch(EVENTS, 11), 13) == EVENTS[2:]
    assert positions.unseen(batch(EVENTS, 11), 14) == ()
    assert positions.unseen(batch(EVENTS, 11), 99) == ()


def test_a_batch_with_skipped_offsets_is_given_whole_while_it_straddles_the_position() -> None:
    assert positions.unseen(batch(EVENTS, 11, gap=1), 13) == EVENTS
    assert positions.unseen(batch(EVENTS, 11, gap=1), 15) == ()


def test_a_batch_beyond_the_position_is_refused_with_the_offset_to_read() -> None:
    with pytest.raises(positions.BeyondPositionError, match=r"begins at 11, beyond the position 10") as refused:
        positions.unseen(batch(EVENTS, 11), 10)
    assert refused.value.position == 10


def test_an_empty_batch_has_nothing_unseen() -> None:
    assert positions.unseen(batch((), 11), 11) == ()


def test_reading_begins_at_the_position() -> None:
    assert positions.start("events/0", 7, 0, 9) == positions.Start(7, 7)
    assert positions.start("events/0", 9, 0, 9) == positions.Start(9, 9)


def test_what_retention_took_before_it_was_counted_is_passed_by_the_first_batch() -> None:
    assert positions.start("events/0", 7, 8, 9) == positions.Start(7, 8)


def test_a_partition_of_which_nothing_was_counted_begins_where_its_log_begins_now() -> None:
    assert positions.start("events/0", None, 0, 9) == positions.Start(0, 0)
    assert positions.start("events/0", None, 5, 9) == positions.Start(5, 5)


def test_a_log_that_ends_before_the_position_is_not_read() -> None:
    with pytest.raises(positions.LogShrunkError, match=r"events/0: the position 10 lies beyond the log's end 9"):
        positions.start("events/0", 10, 0, 9)
    positions.check_end("events/0", None, 0)


@pytest.mark.parametrize(
    ("progress", "from_day"),
    [
        (Progress(3, None, None, None, None), date.min),
        (Progress(3, 3, 9, NOON, None), NOON.date() - timedelta(days=1)),
        (Progress(3, 2, 9, NOON, date(2025, 1, 7)), date(2025, 1, 7)),
        (Progress(3, 2, 9, NOON, NOON.date()), NOON.date() - timedelta(days=1)),
    ],
)
def test_what_was_not_told_is_of_the_day_before_the_last_note_or_later(progress: Progress, from_day: date) -> None:
    """Whatever day it is now: what changed since then was of that day or a later one, or lowered the day."""
    assert positions.untold_from(progress) == from_day
