"""What is minted, is what its form says, and is not minted twice."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from runtime import ids
from schemas.base import rfc3339

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
    requests = {minter.uuid7(NOON) for _ in range(5000)}
    assert len(ulids) == len(requests) == 5000
    assert {len(each) for each in ulids} == {26}
    assert {len({each[place] for each in ulids}) for place in range(10, 26)} == {32}, "every digit in every place"
    for each in requests:
        read = uuid.UUID(each)
        assert (str(read), read.version, read.variant) == (each, 7, uuid.RFC_4122)


@given(st.integers(0, 10**16).map(lambda us: NOON + timedelta(microseconds=us)))
def test_a_request_id_and_a_key_name_the_very_millisecond_that_events_are_written_with(at: datetime) -> None:
    minter = ids.Minter()
    request_id = minter.uuid7(at)
    moment = ids.moment_of(request_id)
    assert moment is not None
    assert rfc3339(moment) == rfc3339(at)
    assert ULID.from_str(minter.mint(at)).milliseconds == uuid.UUID(request_id).int >> 80
    assert ids.first_uuid7_of(at) <= request_id < ids.first_uuid7_of(at + timedelta(milliseconds=1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        str(uuid.UUID(int=5)),
        "0" * 36,
        "834c222e-50ac-4a34-a7b1-8898f7a1ea21",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
    ],
)
def test_what_names_no_moment_is_no_request_id(text: str) -> None:
    assert ids.moment_of(text) is None
