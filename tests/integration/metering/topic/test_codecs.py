"""Topics that the broker compresses in its own way are read."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import USAGE_EVENTS
from tests.integration.metering.topic.scene import Scene, running, until


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
