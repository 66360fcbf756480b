"""How batches lie to the position."""

from datetime import UTC, datetime, timedelta

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


EARLIER = NOON - timedelta(seconds=1)


@pytest.mark.parametrize(
    ("progress", "since"),
    [
        (Progress(3, NOON, 3, NOON), None),
        (Progress(3, NOON, 2, NOON), NOON),  # two moves within one tick of the clock, of which the first is published
        (Progress(3, NOON, 3, EARLIER), EARLIER),
        (Progress(3, NOON, 2, EARLIER), EARLIER),
        (Progress(3, NOON, None, None), datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_partition_is_published_only_when_both_its_offset_and_its_time_are(
    progress: Progress, since: datetime | None
) -> None:
    assert progress.is_published is (since is None)
    assert positions.unpublished_since(progress) == since
