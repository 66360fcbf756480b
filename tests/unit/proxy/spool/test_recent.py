"""Which events of a spool stay decoded for its other reader."""

from proxy.spool import recent
from proxy.spool.recent import Recent
from schemas import spooled
from schemas.spooled import SpooledEvent
from tests.contracts.proxy.drafts import draft


def events(*sequences: int) -> list[SpooledEvent]:
    return [
        spooled.decode(draft(number).model_dump_json()[:-1] + f',"producer":{{"instance":"one","sequence":{number}}}}}')
        for number in sequences
    ]


def numbers(read: list[SpooledEvent]) -> list[int]:
    return [event.producer.sequence for event in read]


def test_the_second_reader_gets_what_the_first_one_has_read() -> None:
    known = Recent()
    known.keep(events(4, 5))
    known.keep(events(6))
    assert numbers(known.take(4, 10)) == [4, 5, 6]
    assert numbers(known.take(5, 1)) == [5]
    assert known.take(7, 10) == []
    assert known.take(3, 10) == [], "what lies before is not known"


def test_what_does_not_follow_takes_the_place_of_what_was_known() -> None:
    known = Recent()
    known.keep(events(4, 5))
    known.keep(events(1, 2))
    assert numbers(known.take(4, 10)) == [4, 5], "an older stretch, of a reader that is behind"
    known.keep(events(9, 10))
    assert known.take(4, 10) == []
    assert numbers(known.take(9, 10)) == [9, 10]


def test_a_stretch_with_a_damaged_row_in_it_is_not_kept() -> None:
    known = Recent()
    known.keep(events(4, 5))
    known.keep(events(6, 8))
    assert known.take(4, 10) == known.take(6, 10) == []


def test_no_more_than_its_bound_is_kept() -> None:
    known = Recent()
    (one,) = events(1)
    for first in range(1, 3 * recent.MOST, 1000):
        known.keep(events(*range(first, first + 1000)))
    assert len(known._events) == recent.MOST
    assert known.take(one.producer.sequence, 1) == []
