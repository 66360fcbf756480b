"""Clocks: they never step back and never stand still, and a shared one follows what it was set to."""

import inspect
import time
from datetime import UTC, datetime, timedelta

import pytest

from runtime.clock import SharedClock, steady

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Source:
    """A machine's clock, moved by hand."""

    def __init__(self) -> None:
        self.seconds = NOON.timestamp()

    def __call__(self) -> float:
        return self.seconds


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_steady_clock_goes_at_half_the_speed_where_its_source_stepped_back_until_that_has_caught_up() -> None:
    source, passing = Source(), Source()
    clock = steady(source, passing)
    source.seconds += 5
    passing.seconds += 5
    assert clock() == after(5)
    source.seconds -= 3600
    assert clock() == after(5)
    shown = []
    for _ in range(8):
        source.seconds += 1000
        passing.seconds += 1000
        shown.append(clock())
    assert shown[:7] == [after(5 + 500 * number) for number in range(1, 8)]
    assert shown[7] == after(4405), "the source is in front again"


@pytest.mark.parametrize("step_s", [-86400.0, -3600.0, -0.001, 0.0, 0.001, 3600.0])
def test_no_step_of_a_source_turns_a_steady_clock_back_or_holds_it(step_s: float) -> None:
    source, passing = Source(), Source()
    clock = steady(source, passing)
    before = clock()
    source.seconds += step_s
    for _ in range(100):
        source.seconds += 1
        passing.seconds += 1
        now = clock()
        assert now - before >= timedelta(seconds=0.499)
        before = now


def test_a_shared_clock_is_the_others_time_and_what_has_passed_since_whatever_its_machine_says() -> None:
    passing = Source()
    passing.seconds = 77.0
    clock = SharedClock(NOON, passing)
    assert clock() == NOON
    passing.seconds += 2
    assert clock() == after(2)


def test_a_shared_clock_goes_by_what_no_step_and_no_sleep_of_the_machine_changes() -> None:
    passing = inspect.signature(SharedClock).parameters["passing"].default
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= passing() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_shared_clock_goes_on_from_what_it_is_set_to_and_never_back() -> None:
    passing = Source()
    clock = SharedClock(NOON, passing)
    clock.set(after(3610))
    assert clock() == after(3610)
    clock.set(after(10))
    assert (clock(), clock.present()) == (after(3610), after(10))
    passing.seconds += 60
    assert (clock(), clock.present()) == (after(3640), after(70))
    passing.seconds += 7200
    assert clock() == clock.present() == after(7270)
