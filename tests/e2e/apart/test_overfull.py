"""Tables and topics that are full of what nobody can use: every role starts all the same, counts and delivers.

More in each than its reader takes at once, and a record near the largest that Kafka takes (counting 5).
"""

import asyncio
import base64
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import JSON, Boolean, Connection, Date, Float, Integer, LargeBinary, Table
from sqlalchemy.types import BigInteger, DateTime, TypeEngine

from control.store import tables as control
from infra.local import parts
from metering.store import events, tables
from metering.store.alerts import USAGE_ALERT
from metering.store.positions import METERING_POSITION
from metering.store.spreads import TREE_SPREAD
from metering.topic.lanes import lane_of
from runtime.database import engines as databases
from runtime.database import statements
from runtime.database.engines import UtcDateTime
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas import topics
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.conftest import eventually
from tests.support import cluster as clusters
from tests.support import databases as fresh_databases
from tests.support import processes, records, services
from webhooks.store import tables as webhooks

PARTITIONS, ROWS = 4, 1500
NOW = datetime.now(UTC)
TODAY = NOW.date()
FILLED: Mapping[Table, Mapping[str, Any]] = {
    tables.USAGE_DAILY: {"lane": lane_of(0), "day": TODAY},
    tables.LIMIT_DAILY: {"lane": lane_of(0), "day": TODAY},
    tables.KEY_DAILY: {"lane": lane_of(0), "day": TODAY},
    events.METERING_DUPLICATE: {},
    METERING_POSITION: {"partition": 0},
    USAGE_ALERT: {"day": TODAY, "type": "REQUEST", "unit": "DAY", "delivery_id": None},
    TREE_SPREAD: {"lanes": 2},
    webhooks.DELIVERY: {"status": "not_due", "queue": "first", "claimable_at": None, "next_attempt_at": None},
    webhooks.DELIVERY_EVENT: {"day": TODAY},
    webhooks.WEBHOOK_POSITION: {"partition": 0},
    webhooks.WEBHOOK_RECEIVER: {},
    control.REQUEST_RECORD: {},
}
"""Each table that the roles themselves write, and what its rows are alike in."""


def value(of: TypeEngine[Any], number: int) -> Any:
    """Return a value of a column's type; texts and numbers tell rows apart."""
    kinds: tuple[tuple[type[Any] | tuple[type[Any], ...], Any], ...] = (
        (Boolean, False),
        ((Integer, BigInteger), number),
        (Float, 1.0),
        (Date, date(2025, 1, 1)),
        ((UtcDateTime, DateTime), NOW),
        (LargeBinary, b"{}"),
        (JSON, {}),
    )
    return next((found for kind, found in kinds if isinstance(of, kind)), f"{number:026}")


def fill(connection: Connection, rows: int) -> None:
    """Fill each table."""
    for table, alike in FILLED.items():
        insert = statements.insert_into("postgresql", table).on_conflict_do_nothing()
        for start in range(0, rows, 5000):
            given = [
                {column.name: alike.get(column.name, value(column.type, number)) for column in table.columns}
                for number in range(start, min(rows, start + 5000))
            ]
            connection.execute(insert, given)


async def fill_topics(where: Kafka, count: int) -> None:
    """Write what nobody can use to each topic: junk, and one record near the largest that there may be."""
    await records.make_topics(where, partitions=PARTITIONS)
    writer = Writer(where, "test")
    try:
        for topic in topics.VALUES:
            junk = [KafkaRecord(b"%d" % number, b'{"junk": true}') for number in range(count)]
            for start in range(0, count, 2000):
                await writer.write(topic, junk[start : start + 2000], 60)
            await writer.write(topic, [KafkaRecord(b"large", b'"%s"' % (b"x" * 900_000))], 60)
        for prefix in (topics.SPREAD_KEY, "counter/"):
            told = [KafkaRecord(f"{prefix}{number}".encode(), b"[]") for number in range(count)]
            await writer.write(topics.LIMITS_DECISIONS, told, 60)
    finally:
        await writer.close()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_role_starts_counts_and_delivers_and_starts_again(
    tmp_path: Path, kafka_bootstrap: str, _topics_swept: None, postgres_server: str
) -> None:
    where = Kafka(kafka_bootstrap, f"{services.PREFIX}overfull.")
    with fresh_databases.fresh(postgres_server, services.PREFIX) as url:
        settings = parts.settings(kafka_bootstrap, url, base64.b64encode(bytes(32)).decode(), PARTITIONS)
        settings |= {"kafka_topic_prefix": where.prefix}
        processes.run("migrate", "--data", str(tmp_path / "first"), settings=settings)
        with databases.postgres(url) as opened:
            opened.write_now(lambda connection: fill(connection, ROWS))
        asyncio.run(fill_topics(where, ROWS))
        with (
            clusters.running(tmp_path, where, url, partitions=PARTITIONS, webhook_linger_ms="200") as cluster,
            labs.on(cluster, tmp_path) as lab,
        ):
            _, key = lab.customer("acme", usage_limits=[{"type": "REQUEST", "unit": "DAY", "threshold": 100}])
            for turn in (1, 2):
                eventually(lambda: not cluster.unready(), within_s=300)
                eventually(lambda: call(cluster.proxies[0], key).status_code == 200, within_s=120)
                eventually(lambda turn=turn: len(lab.received()) >= turn, within_s=300)  # type: ignore[misc]
                if turn == 1:
                    for name in list(cluster.servers):
                        cluster.replace(name)


def call(proxy: str, key: str) -> httpx.Response:
    asking = {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}]}
    headers = {"Authorization": f"Api-Key {key}"}
    return httpx.post(f"{proxy}/v1/chat/completions", headers=headers, json=asking, timeout=30)
