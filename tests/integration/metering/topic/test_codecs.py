"""Topics that the broker compresses in its own way are read."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException

from runtime.kafka.consumers import UnreadableTopicError
from schemas.topics import USAGE_EVENTS
from tests.integration.metering.topic.scene import Scene, failing, running, until
from tests.support import records


@pytest.mark.parametrize("codec", ["lz4", "zstd", "snappy", "gzip"])
async def test_a_compressed_topic_is_counted(scene: Scene, codec: str) -> None:
    await records.compress(scene.where, USAGE_EVENTS, codec)
    await scene.put(*(scene.event(number) for number in range(1, 51)))
    async with running(scene.worker()) as run:
        await until(lambda: scene.counted() == 50, run)


async def test_a_broken_batch_ends_the_worker_with_a_line_that_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_records: Any) -> Iterator[Any]:
        raise CorruptRecordException("Invalid CRC")
        yield

    monkeypatch.setattr(fetcher.PartitionRecords, "_unpack_records", broken)
    await scene.put(scene.event(1))
    ended = await failing(scene.worker().run())
    assert isinstance(ended, UnreadableTopicError)
    assert re.search(rf"{USAGE_EVENTS} cannot be read on: CorruptRecordException: .*Invalid CRC", str(ended))
    assert scene.counted() == 0
