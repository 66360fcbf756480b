"""A worker's membership of its group: what it tells the group never costs it its place there."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from metering.topic import faust_consumer
from metering.topic.worker import MeteringWorker
from tests.integration.metering.topic.scene import Scene, running, until

SESSION_S = 6.0
"""The shortest that a broker allows."""


@contextmanager
def frozen(worker: MeteringWorker) -> Iterator[None]:
    """Hold up a worker's consumer, as a machine that swaps does: the group hears nothing of it any more."""
    thaw = threading.Event()
    worker._fetches._consumer._thread.thread_loop.call_soon_threadsafe(thaw.wait, 60)
    yield
    thaw.set()


def rebalances(worker: MeteringWorker) -> int:
    return worker._fetches._app.rebalancing_count


@pytest.mark.parametrize("scene", [4], indirect=True)
async def test_offsets_are_not_written_into_a_rebalance(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker would answer after the group has moved on, and aiokafka forget its new membership."""
    monkeypatch.setattr(faust_consumer, "_SESSION_S", SESSION_S)
    first, silent, new = scene.worker(), scene.worker(), scene.worker()
    async with running(first) as one, running(silent) as two:
        await until(lambda: len(first._owned()) == 2 == len(silent._owned()), one)
        coordinator = first._fetches._consumer._thread._ensure_consumer()._coordinator
        await until(lambda: not coordinator._performed_join_prepare, one)
        before = rebalances(first)
        with frozen(silent):
            async with running(new) as three:
                # The rebalance that `new` brings about takes until the group gives up on the silent one.
                await until(lambda: coordinator._performed_join_prepare, one)
                assert await first._write_offsets({first._owned()[0]: 0}) is False
                await until(lambda: len(new._owned()) == 2 == len(first._owned()), three)
                await scene.put(*(scene.event(number, f"group-{number % 20}") for number in range(1, 101)))
                await until(lambda: scene.counted() == 100, three)
                assert await asyncio.wait_for(first._write_offsets({first._owned()[0]: 0}), 10) is True
                assert rebalances(first) == before + 1, "it had to join again"
        await until(lambda: len(silent._owned()) > 0, two)
