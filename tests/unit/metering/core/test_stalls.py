"""When a partition stands still."""

from metering.core.stalls import Backlog, Log

BOUND_S = 60


def test_the_lag_is_what_lies_between_the_position_and_the_end() -> None:
    assert Log(3, 0, 10).lag == 7
    assert Log(None, 4, 10).lag == 6
    assert Log(12, 0, 10).lag == 0


def test_a_partition_that_stays_behind_for_longer_than_the_bound_is_stalled() -> None:
    backlog = Backlog()
    assert backlog.look(0, {0: Log(3, 0, 5), 1: Log(5, 0, 5)}, {}, BOUND_S) == []
    assert backlog.look(60, {0: Log(3, 0, 9), 1: Log(5, 0, 5)}, {}, BOUND_S) == []
    assert backlog.look(61, {0: Log(3, 0, 9), 1: Log(5, 0, 5)}, {}, BOUND_S) == [0]


def test_a_partition_that_moves_is_not_stalled_however_far_behind_it_is() -> None:
    backlog = Backlog()
    for second in range(0, 600, 50):
        assert backlog.look(second, {0: Log(second, 0, 10_000)}, {}, BOUND_S) == []


def test_what_comes_after_a_rest_has_the_whole_time() -> None:
    backlog = Backlog()
    backlog.look(0, {0: Log(5, 0, 5)}, {}, BOUND_S)
    assert backlog.look(500, {0: Log(5, 0, 5)}, {}, BOUND_S) == []
    assert backlog.look(501, {0: Log(5, 0, 6)}, {}, BOUND_S) == []
    assert backlog.look(561, {0: Log(5, 0, 6)}, {}, BOUND_S) == [0]


def test_the_first_batch_of_a_partition_is_waited_for_too() -> None:
    backlog = Backlog()
    backlog.look(0, {0: Log(None, 0, 5)}, {}, BOUND_S)
    assert backlog.look(61, {0: Log(None, 0, 5)}, {}, BOUND_S) == [0]


def test_whoever_tries_is_not_stalled_for_as_long_again() -> None:
    backlog = Backlog()
    backlog.look(0, {0: Log(3, 0, 5)}, {}, BOUND_S)
    assert backlog.look(100, {0: Log(3, 0, 5)}, {0: 40.0}, BOUND_S) == []
    assert backlog.look(101, {0: Log(3, 0, 5)}, {0: 40.0}, BOUND_S) == [0]


def test_a_partition_that_came_back_has_the_whole_time() -> None:
    backlog = Backlog()
    backlog.look(0, {0: Log(3, 0, 5)}, {}, BOUND_S)
    backlog.look(50, {}, {}, BOUND_S)
    assert backlog.look(100, {0: Log(3, 0, 5)}, {}, BOUND_S) == []


def test_an_outage_of_the_services_is_forgiven() -> None:
    backlog = Backlog()
    backlog.look(0, {0: Log(3, 0, 5)}, {}, BOUND_S)
    backlog.forgive()
    assert backlog.look(100, {0: Log(3, 0, 5)}, {}, BOUND_S) == []
    assert backlog.look(161, {0: Log(3, 0, 5)}, {}, BOUND_S) == [0]
