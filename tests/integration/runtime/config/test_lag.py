"""From a change's commit to a follower that has applied it, over real Kafka and PostgreSQL (counting 8)."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infra.local.kafka import Broker
from runtime.config.feed import ConfigFeed
from runtime.database.engines import Database
from runtime.kafka import feed
from runtime.kafka.writer import Kafka
from schemas.topics import GATEWAY_CONFIG
from tests.integration.runtime.config import scene
from tests.integration.runtime.config.scene import Heard
from tests.integration.runtime.database.test_leadership import end_the_holder
from tests.support import records


async def test_a_change_is_in_force_whether_its_relay_was_poked_or_looked_by_itself(
    kafka: Kafka, postgres: Database
) -> None:
    await records.make_topics(kafka)
    relay = scene.relay(postgres, kafka)
    heard = Heard()
    follower = ConfigFeed(kafka, heard.apply, None, scene.now)
    async with scene.running(relay.run, follower.run):
        await heard.version(scene.change(postgres, "first"))
        for number in range(20):
            version = scene.change(postgres, f"w{number}", None if number % 5 == 4 else "lab")
            if number % 2:
                relay.poke()
            await heard.version(version)
    assert sum(change.record is None for change in heard.changes) == 4


async def test_the_lock_holder_killed_another_goes_on(
    kafka: Kafka, postgres: Database, postgres_migrated_url: str
) -> None:
    await records.make_topics(kafka)
    live, late = Heard(), Heard()
    follower = ConfigFeed(kafka, live.apply, None, scene.now)
    second = scene.relay(postgres, kafka)
    async with relaying(kafka, postgres_migrated_url) as first, scene.running(follower.run, second.run):
        for number in range(200):
            version = scene.change(postgres, f"w{number % 10}", f"lab {number}")
            if number == 100:
                first.kill()
        await live.version(version)
        fresh = ConfigFeed(kafka, late.apply, None, scene.now)
        async with scene.running(fresh.run):
            await late.version(version)
    for heard in (live, late):
        assert {change.version for change in heard.changes} == set(range(1, version + 1))
        assert in_order(heard)
        assert {id_: change.version for id_, change in heard.state().items()} == {
            f"w{number % 10}": number + 1 for number in range(190, 200)
        }


async def test_the_lock_lost_while_changes_come_none_is_lost(kafka: Kafka, postgres: Database) -> None:
    await records.make_topics(kafka)
    heard = Heard()
    follower = ConfigFeed(kafka, heard.apply, None, scene.now)
    relays = [scene.relay(postgres, kafka) for _ in range(2)]
    async with scene.running(follower.run, *(relay.run for relay in relays)):
        await heard.version(scene.change(postgres, "first"))
        for _ in range(3):
            end_the_holder(postgres)
            for number in range(20):
                version = scene.change(postgres, f"w{number % 3}")
                await asyncio.sleep(0)
            await heard.version(version)
    assert {change.version for change in heard.changes} == set(range(1, version + 1))
    assert in_order(heard)


def in_order(heard: Heard) -> bool:
    """Tell whether no thing's version came for the first time after a higher one of it."""
    highest: dict[str, int] = {}
    seen: set[int] = set()
    for change in heard.changes:
        if change.version not in seen and change.version < highest.get(change.id, 0):
            return False
        seen.add(change.version)
        highest[change.id] = max(change.version, highest.get(change.id, 0))
    return True


async def test_no_relay_at_all_the_database_is_asked(kafka: Kafka, postgres: Database) -> None:
    await records.make_topics(kafka)
    heard = Heard()
    follower = ConfigFeed(kafka, heard.apply, postgres, scene.now, silence_s=0.5, read_every_s=0.5)
    async with scene.running(scene.relay(postgres, kafka).run):
        async with asyncio.timeout(scene.WITHIN_S):
            while await feed.ends(kafka, GATEWAY_CONFIG) == {0: 0}:
                pass
    async with scene.running(follower.run):
        await follower.caught_up()
        for number in range(3):
            await heard.version(scene.change(postgres, f"w{number}"))


async def test_the_broker_hangs_then_dies_and_comes_back(kafka_broker: Broker, postgres: Database) -> None:
    kafka = Kafka(kafka_broker.bootstrap)
    await records.make_topics(kafka)
    relay = scene.relay(postgres, kafka)
    rich, poor = Heard(), Heard()
    with_database = ConfigFeed(kafka, rich.apply, postgres, scene.now, silence_s=5, read_every_s=1)
    without = ConfigFeed(kafka, poor.apply, None, scene.now, silence_s=5)
    async with scene.running(relay.run, with_database.run, without.run):
        version = scene.change(postgres, "before")
        await asyncio.gather(rich.version(version), poor.version(version))
        await asyncio.gather(with_database.caught_up(), without.caught_up())
        kafka_broker.process.pause()
        hung = scene.change(postgres, "while it hangs")
        await rich.version(hung)
        assert poor.state().keys() == {"before"}
        kafka_broker.process.resume()
        await poor.version(hung, within_s=60)
        kafka_broker.stop()
        dead = scene.change(postgres, "while it is dead")
        await rich.version(dead)
        kafka_broker.start()
        await poor.version(dead, within_s=60)
        await poor.version(scene.change(postgres, "after"), within_s=60)


@asynccontextmanager
async def relaying(kafka: Kafka, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a relay in a process of its own until the block ends; it leads from the block's beginning."""
    words = ("-m", "tests.integration.runtime.config.relaying", kafka.bootstrap, kafka.prefix, url)
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(scene.WITHIN_S):
            while b"relays" not in (line := await process.stderr.readline()):
                assert line, "it ended"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
