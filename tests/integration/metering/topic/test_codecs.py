"""Topics that the broker compresses in its own way are read; where one cannot be, the worker ends with an error."""

import aiokafka.codec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import USAGE_EVENTS
from tests.integration.metering.topic.scene import Scene, failing, running, until


async def compress(scene: Scene, codec: str) -> None:
    """Have the broker write what comes with this codec."""
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.where.bootstrap)
    await admin.start()
    try:
        name = scene.where.name(USAGE_EVENTS)
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"compression.type": codec})])
    finally:
        await admin.close()


@pytest.mark.parametrize("codec", ["lz4", "zstd", "snappy", "gzip"])
async def test_a_compressed_topic_is_counted(scene: Scene, codec: str) -> None:
    await compress(scene, codec)
    await scene.put(*(scene.event(number) for number in range(1, 51)))
    async with running(scene.worker()) as run:
        await until(lambda: scene.counted() == 50, run)


async def test_a_codec_that_cannot_be_read_ends_the_worker(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiokafka.codec, "cramjam", None)
    await compress(scene, "lz4")
    await scene.put(scene.event(1))
    error = await failing(scene.worker(stalled_s=1).run())
    assert isinstance(error, Exception)
    assert scene.counted() == 0
