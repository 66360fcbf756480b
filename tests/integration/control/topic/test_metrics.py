"""What the relay and the followers of the configuration show: news alone, measured from its commit."""

from datetime import timedelta

import pytest

from runtime.config import records as config_records
from runtime.database.engines import Database
from runtime.kafka.writer import KafkaAwayError
from runtime.telemetry.metrics import Telemetry
from tests.integration.runtime.config import scene
from tests.integration.runtime.config.follower import Follower
from tests.integration.runtime.config.kit import Scene
from tests.support import scraping
from tests.support.scraping import Samples

DELAY = "tollgate_config_propagation_seconds"


async def shown(part: object) -> Samples:
    telemetry = Telemetry()
    part.register_metrics(telemetry)  # type: ignore[attr-defined]
    return scraping.samples((await telemetry.text()).decode())


def send(follower: Follower, version: int, id_: str, *, age_s: float = 0, name: str | None = "lab") -> None:
    """Send a change as the relay does, committed `age_s` ago."""
    state = None if name is None else scene.workspace(id_, name).model_dump(mode="json", by_alias=True)
    committed = follower.now() - timedelta(seconds=age_s)
    follower.broker.put(config_records.encode(version, "workspace", id_, state, committed))


async def test_news_alone_is_measured() -> None:
    follower = Follower(None)
    send(follower, 1, "at start", age_s=100)
    follower.beat(1)
    async with follower.running():
        assert (await shown(follower.feed))[f"{DELAY}_count", ""] == 0
        send(follower, 2, "news", age_s=0.5)
        send(follower, 2, "news", age_s=0.5)  # twice in what is heard at once
        send(follower, 3, "at start", name=None, age_s=0.5)
        await follower.heard.version(3)
        send(follower, 1, "at start", age_s=100)  # published again
        send(follower, 3, "at start", name=None, age_s=100)
        follower.send(4, "of a snapshot")
        await follower.heard.version(4)
        found = await shown(follower.feed)
    assert found[f"{DELAY}_count", ""] == found[f"{DELAY}_bucket", "5.0"] == 2
    assert found[f"{DELAY}_sum", ""] == pytest.approx(1, abs=2.5)  # time moves by itself while nothing is there
    assert found["tollgate_config_version", ""] == 4


async def test_what_the_database_tells_in_a_silence_is_measured_too(database: Database) -> None:
    follower = Follower(database)
    follower.change("first")
    send(follower, 1, "first")
    follower.beat(1)
    async with follower.running():
        follower.mute()
        version = follower.change("second")
        await follower.heard.version(version)
        found = await shown(follower.feed)
    assert found[f"{DELAY}_count", ""] == 1  # the last minutes are read again: what is known is no news
    assert 5 < found[f"{DELAY}_sum", ""] < 60
    assert found["tollgate_config_silence_seconds", ""] >= 10


async def test_the_relay_shows_what_waits_for_kafka(begun: Scene) -> None:
    begun.change("a")
    begun.change("b")
    begun.topics.refuses = lambda record: KafkaAwayError("away")
    with pytest.raises(KafkaAwayError):
        await begun.step()
    found = await shown(begun.relay)
    assert (found["tollgate_relay_unsent_changes", ""], found["tollgate_relay_sent_version", ""]) == (2, 0)
    begun.topics.refuses = lambda record: None
    await begun.step()
    found = await shown(begun.relay)
    assert (found["tollgate_relay_unsent_changes", ""], found["tollgate_relay_sent_version", ""]) == (0, 2)


async def test_a_relay_leads_while_it_has_the_lock(database: Database) -> None:
    begun = Scene(database)
    async with scene.running(begun.relay.run):
        await begun.topics.until(lambda: begun.topics.heartbeats() != [])
        assert (await shown(begun.relay))["tollgate_relay_leading", ""] == 1
    assert (await shown(begun.relay))["tollgate_relay_leading", ""] == 0
