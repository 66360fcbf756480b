"""What every `InFlight` adapter must do (counting 2)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.admission import InFlight
from proxy.core.calls import SpoolUnavailableError
from proxy.spool.slots import SLOT_BYTES, Slots
from tests.unit.proxy.fakes import FakeSlots

COUNT = 3


@pytest.fixture(params=["fake", "slots"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InFlight]:
    if request.param == "fake":
        yield FakeSlots(COUNT)
        return
    slots = Slots(tmp_path / "in_flight", count=COUNT)
    yield slots
    slots.close()


def test_slots_are_distinct_while_they_are_open(adapter: InFlight) -> None:
    assert len({adapter.open_slot(b"{}") for _ in range(COUNT)}) == COUNT


def test_there_are_so_many_and_no_more_until_one_is_closed(adapter: InFlight) -> None:
    assert not adapter.is_full
    slots = [adapter.open_slot(b"{}") for _ in range(COUNT)]
    assert adapter.is_full
    for _ in range(2):
        with pytest.raises(SpoolUnavailableError, match="in flight"):
            adapter.open_slot(b"{}")
    adapter.close_slot(slots[1])
    assert adapter.open_slot(b"{}") == slots[1]
    with pytest.raises(SpoolUnavailableError):
        adapter.open_slot(b"{}")


def test_facts_that_are_too_large_take_no_slot(adapter: InFlight) -> None:
    for _ in range(2 * COUNT):
        with pytest.raises(SpoolUnavailableError):
            adapter.open_slot(b"x" * SLOT_BYTES)
    for _ in range(COUNT):
        adapter.open_slot(b"x" * (SLOT_BYTES - 4))
