import asyncio

from runtime.kafka import feed
from runtime.kafka.feed import Feed
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas.topics import GATEWAY_CONFIG, LIMITS_DECISIONS
from tests.integration.runtime.config import scene
from tests.integration.runtime.config.scene import Heard
from tests.support import records


async def test_everything_from_the_beginning_and_what_comes_later(kafka: Kafka) -> None:
    await records.make_topics(kafka, only=[LIMITS_DECISIONS])
    writer = Writer(kafka, "test")
    keys = [b"%d" % number for number in range(3000)]
    await writer.write(LIMITS_DECISIONS, [KafkaRecord(key, b"v", (("h", b"1"),)) for key in keys])
    heard = Heard()
    follower = Feed(kafka, LIMITS_DECISIONS, heard.take)
    async with scene.running(follower.run):
        async with asyncio.timeout(scene.WITHIN_S):
            await follower.caught_up()
        assert sorted(record.key for record in heard.records) == sorted(keys)
        assert {record.partition for record in heard.records} == {0, 1, 2, 3}
        assert {tuple(record.headers) for record in heard.records} == {(("h", b"1"),)}
        await writer.write(LIMITS_DECISIONS, [KafkaRecord(b"later", None)])
        await heard.until(lambda: heard.records[-1].key == b"later")
        assert heard.records[-1].value is None
    await writer.close()


async def test_an_empty_topic_is_caught_up_with_at_once(kafka: Kafka) -> None:
    await records.make_topics(kafka, only=[LIMITS_DECISIONS])
    follower = Feed(kafka, LIMITS_DECISIONS, Heard().take)
    async with scene.running(follower.run), asyncio.timeout(scene.WITHIN_S):
        await follower.caught_up()


async def test_the_ends_of_a_topic(kafka: Kafka) -> None:
    await records.make_topics(kafka, only=[GATEWAY_CONFIG])
    assert await feed.ends(kafka, GATEWAY_CONFIG) == {0: 0}
    writer = Writer(kafka, "test")
    await writer.write(GATEWAY_CONFIG, [KafkaRecord(b"a", b"1"), KafkaRecord(b"b", b"1")])
    assert await feed.ends(kafka, GATEWAY_CONFIG) == {0: 2}
    await writer.close()
