"""The watchdog over services that answer as they are told to."""

import pytest

from domain.positions import LogShrunkError
from metering.topic.watchdog import StalledError, Watchdog
from runtime.kafka.reader import LogBounds
from runtime.kafka.writer import KafkaAwayError


class Services:
    """A database and a Kafka; `owned` are the worker's partitions."""

    def __init__(self) -> None:
        self.positions: dict[int, int | None] = {0: 5, 1: 5}
        self.ends = {0: 5, 1: 5}
        self.owned = [0]
        self.failure: Exception | None = None
        self.asked: list[str] = []
        self.now_s = 0.0

    async def position(self, partition: int) -> int | None:
        self.asked.append("position")
        return self.positions[partition]

    async def bounds(self) -> dict[int, LogBounds]:
        self.asked.append("bounds")
        if self.failure is not None:
            raise self.failure
        return {partition: LogBounds(0, end) for partition, end in self.ends.items()}


class StopError(Exception):
    """Ends a watchdog's run."""


def watchdog(services: Services, *, looks: int = 0, stalled_s: float = 10, left_out_s: float = 10) -> Watchdog:
    """Make one that looks every 11 s, which is too long, unless told otherwise."""
    left = iter(range(looks))

    async def pause(_: float) -> None:
        services.now_s += 11
        if next(left, None) is None:
            raise StopError

    return Watchdog(
        services.position,
        services.bounds,
        lambda: services.owned,
        pause=pause,
        steady=lambda: services.now_s,
        stalled_s=stalled_s,
        left_out_s=left_out_s,
    )


async def test_the_lag_of_the_workers_own_partitions_is_known() -> None:
    services = Services()
    services.ends = {0: 9, 1: 7}
    guard = watchdog(services, stalled_s=60)
    await guard.look()
    assert guard.lag == {0: 4}
    assert services.asked.index("bounds") > services.asked.index("position"), "else a position may seem beyond its end"


async def test_a_partition_that_stands_still_with_a_lag_ends_the_worker() -> None:
    services = Services()
    services.ends[0] = 9
    guard = watchdog(services, looks=3)
    with pytest.raises(StalledError, match=r"usage.events.v1/0 at 5, 4 behind"):
        await guard.run()


async def test_a_worker_without_partitions_looks_at_all_of_them() -> None:
    services = Services()
    services.owned, services.ends[1] = [], 9
    with pytest.raises(StalledError, match=r"usage.events.v1/1 at 5"):
        await watchdog(services, looks=3, stalled_s=60).run()
    with pytest.raises(StopError):
        await watchdog(services, looks=3, left_out_s=60).run()


async def test_other_workers_partitions_are_not_ours_to_judge() -> None:
    services = Services()
    services.ends[1] = 9
    with pytest.raises(StopError):
        await watchdog(services, looks=3).run()


async def test_while_kafka_is_away_nobody_is_judged() -> None:
    services = Services()
    services.ends[0], services.failure = 9, KafkaAwayError("away")
    with pytest.raises(StopError):
        await watchdog(services, looks=3).run()


async def test_what_does_not_pass_by_itself_ends_the_worker() -> None:
    services = Services()
    services.failure = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        await watchdog(services, looks=3).run()


async def test_a_log_that_has_shrunk_ends_the_worker() -> None:
    services = Services()
    services.ends[0] = 4
    with pytest.raises(LogShrunkError):
        await watchdog(services, looks=3).run()


async def test_whoever_is_at_work_is_not_judged() -> None:
    services = Services()
    services.ends[0] = 9
    guard = watchdog(services)
    await guard.look()
    services.now_s = 11
    guard.busy([0, 1])
    await guard.look()
    services.now_s = 22
    with pytest.raises(StalledError):
        await guard.look()


async def test_a_partition_is_judged_from_when_it_was_assigned() -> None:
    """A broker keeps a group's first members waiting, for 3 s by default: they have a lag, and cannot count it."""
    services = Services()
    services.owned, services.ends[0] = [], 9
    guard = watchdog(services, left_out_s=60)
    await guard.look()
    services.now_s, services.owned = 50, [0]
    await guard.look()
    services.now_s = 60
    await guard.look()
    services.now_s = 61
    with pytest.raises(StalledError, match="nothing was counted for 10 s"):
        await guard.look()
