"""The services that tests get are real, and each test has its own place in them."""

import asyncio
from urllib.parse import urlsplit

import psycopg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from sqlalchemy import text

from runtime.database import Database
from runtime.kafka import Kafka
from tests import services


def test_a_database_is_empty_and_of_its_test_alone(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
        assert tables.fetchone() == (0,)
        connection.execute("CREATE TABLE mine (a int)")


def test_a_dropped_database_is_gone_with_its_connections(postgres_server: str) -> None:
    with services._database(postgres_server) as url:
        left_open = psycopg.connect(url)
    with psycopg.connect(postgres_server) as connection:
        names = connection.execute("SELECT datname FROM pg_database").fetchall()
    assert (urlsplit(url).path[1:],) not in names
    left_open.close()


def test_a_migrated_database_is_a_fresh_copy(postgres: Database, postgres_template: str) -> None:
    with postgres.engine.connect() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    assert name != postgres_template


async def test_kafka_has_a_prefix_of_each_test_and_makes_no_topic_by_itself(kafka: Kafka) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    try:
        await client.describe_topics([kafka.name("asked")])
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
