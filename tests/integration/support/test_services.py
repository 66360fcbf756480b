"""The services that tests get are real, and each test has its own place in them."""

import asyncio
from urllib.parse import urlsplit

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from sqlalchemy import Connection, text

from runtime.database.engines import Database
from runtime.kafka.writer import Kafka
from tests.support import databases


def test_a_database_is_empty_and_of_its_test_alone(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
        assert tables.fetchone() == (0,)
        connection.execute("CREATE TABLE mine (a int)")


def test_a_dropped_database_is_gone_with_its_connections(postgres_server: str) -> None:
    with databases.fresh(postgres_server, "t-") as url:
        left_open = psycopg.connect(url)
    with psycopg.connect(postgres_server) as connection:
        names = connection.execute("SELECT datname FROM pg_database").fetchall()
    assert (urlsplit(url).path[1:],) not in names
    left_open.close()


@pytest.mark.parametrize("_turn", range(2))
def test_a_migrated_database_holds_nothing_each_time(postgres: Database, _turn: int) -> None:
    def count(connection: Connection) -> tuple[int, int]:
        tables = ("config_version", "config_change")
        first, second = (connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in tables)
        return first, second

    assert postgres.read_now(count) == (1, 0)
    postgres.write_now(lambda connection: connection.execute(text("DELETE FROM config_version")))


async def test_kafka_has_a_prefix_of_each_test(kafka: Kafka) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    try:
        assert not [topic for topic in await client.list_topics() if topic.startswith(kafka.prefix)]
        await client.create_topics([NewTopic(kafka.name("made"), 4, 1)])
        found: list[str] = []
        async with asyncio.timeout(30):
            while kafka.name("made") not in found:  # a broker hears of a topic a moment after it was made
                found = await client.list_topics()
        assert [topic for topic in found if topic.startswith(kafka.prefix)] == [kafka.name("made")], (
            "one that the question had made would be older"
        )
    finally:
        await client.close()
