"""Clocks: they never step back, and a shared one follows what it was set to."""

from datetime import UTC, datetime, timedelta

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


def test_a_steady_clock_waits_where_its_source_steps_back() -> None:
    source = Source()
    clock = steady(source)
    source.seconds += 5
    assert clock() == after(5)
    source.seconds -= 3
    assert clock() == after(5)
    source.seconds += 4
    assert clock() == after(6)


def test_a_shared_clock_is_the_others_time_whatever_its_machine_says() -> None:
    source = Source()
    source.seconds += 300
    clock = SharedClock(NOON, source)
    assert clock() == NOON
    source.seconds += 2
    assert clock() == after(2)


def test_a_shared_clock_goes_on_from_what_it_is_set_to_and_never_back() -> None:
    source = Source()
    clock = SharedClock(NOON, source)
    clock.set(after(10))
    assert clock() == after(10)
    clock.set(after(4))
    assert clock() == after(10)
    source.seconds += 7
    assert clock() == after(11)
