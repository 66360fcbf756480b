"""What is minted, is what its form says, and is not minted twice."""

import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from runtime import ids

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=9))
def test_a_ulid_names_its_millisecond(offsets_us: list[int]) -> None:
    minter = ids.Minter()
    for offset in offsets_us:
        at = NOON + timedelta(microseconds=offset)
        minted = ULID.from_str(minter.mint(at))
        assert abs(minted.datetime - at) <= timedelta(milliseconds=1)


def test_ids_of_one_moment_differ_and_have_their_form() -> None:
    minter = ids.Minter()
    ulids = {minter.mint(NOON) for _ in range(5000)}
    requests = {minter.request_id() for _ in range(5000)}
    assert len(ulids) == len(requests) == 5000
    assert {len(each) for each in ulids} == {26}
    assert {len({each[place] for each in ulids}) for place in range(10, 26)} == {32}, "every digit in every place"
    for each in requests:
        read = uuid.UUID(each)
        assert (str(read), read.version, read.variant) == (each, 4, uuid.RFC_4122)
