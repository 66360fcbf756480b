"""Fetches of one partition as one, unless something is missing between them."""

from metering.topic.batches import joined
from metering.topic.faust_consumer import Fetch


def fetch(first: int, next_offset: int) -> Fetch:
    return Fetch(0, first, next_offset, list(range(first, next_offset)), 1)


def test_fetches_that_follow_on_one_another_are_one() -> None:
    assert joined([fetch(0, 3), fetch(3, 5), fetch(5, 9)]) == [fetch(0, 9)]
    assert joined([]) == []


def test_where_a_fetch_is_missing_the_ledger_will_see_it() -> None:
    assert joined([fetch(0, 3), fetch(5, 9), fetch(9, 10)]) == [fetch(0, 3), fetch(5, 10)]
