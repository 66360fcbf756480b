"""What every `Partition` that intake follows keeps to: the live fake, and the proxy's spool."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from proxy import spool
from runtime.settings import SpoolSync
from schemas.usage import UsageDraft, UsageEvent
from tests.integration.webhooks.scene import LivePartition
from tests.unit.webhooks import kit
from webhooks.flow import Partition

Put = Callable[[UsageEvent], Awaitable[object]]
Made = tuple[Partition, Put]


@contextlib.asynccontextmanager
async def live(_folder: Path) -> AsyncIterator[Made]:
    partition = LivePartition()
    yield partition, partition.put


@contextlib.asynccontextmanager
async def spooled(folder: Path) -> AsyncIterator[Made]:
    opened, _ = spool.open_folder(folder, sync=SpoolSync.NORMAL, max_bytes=10_000_000)
    try:
        yield opened.file, lambda event: opened.put(UsageDraft.model_validate(event.model_dump(exclude={"producer"})))
    finally:
        opened.close()


@pytest.fixture(params=[live, spooled])
async def made(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Made]:
    async with request.param(tmp_path) as partition_and_put:
        yield partition_and_put


async def test_events_are_read_in_order_from_any_offset_and_again(made: Made) -> None:
    partition, put = made
    for number in range(1, 6):
        await put(kit.event(number))
    for _ in range(2):
        batch = await partition.read(2, 3)
        assert (batch.topic, batch.partition) == (partition.topic, partition.partition)
        assert (batch.first_offset, batch.next_offset) == (2, 5)
        assert [event.tokens.input_tokens for event in batch.events] == [2, 3, 4]


async def test_nothing_there_is_an_empty_batch_at_once(made: Made) -> None:
    partition, put = made
    batch = await partition.read(partition.first_offset, 10)
    assert (batch.first_offset, batch.next_offset, batch.events) == (1, 1, ())
    await put(kit.event(1))
    batch = await partition.read(2, 10)
    assert (batch.first_offset, batch.next_offset, batch.events) == (2, 2, ())


async def test_a_wait_ends_when_its_event_is_there_or_its_time_is_over(made: Made) -> None:
    partition, put = made
    await partition.wait(1, 0.01)
    waiting = asyncio.create_task(partition.wait(1, 60))
    await put(kit.event(1))
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(partition.wait(1, 60), 5)
