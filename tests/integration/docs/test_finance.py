"""docs/finance.md: every record is as its schema says, the sums equal the ledger, and the consumer there finds them.

All of it comes the real way: spool, publisher, metering, the relay of corrections; a tree whose limits cascade.
"""

import asyncio
import json
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from aiokafka.structs import ConsumerRecord

from control.flow import corrections as corrections_flow
from control.store import corrections, published
from control.topic.publisher import ConfigPublisher
from domain import ledger_days, validity
from domain.limit_tree import Threshold
from metering import flow
from metering.store import day_partitions, events, transaction
from metering.topic.publisher import KafkaTotals
from proxy.spool.writer import Spool
from runtime.database.engines import Database
from runtime.database.leadership import PostgresLeadership
from runtime.kafka import feed
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas import publish
from schemas.topics import GATEWAY_CONFIG, USAGE_DAILY, USAGE_EVENTS
from schemas.usage import Outcome, Tokens, UsageDraft, UsageSource
from tests.architecture import sources
from tests.integration.proxy import fake_topic as topics
from tests.integration.tollgate.reconciliation.cluster_desk import Reader
from tests.integration.tollgate.reconciliation.desk import draft
from tests.support import records

DOC = (sources.ROOT / "docs/finance.md").read_text(encoding="utf-8")
NOW = datetime.now(UTC)
TODAY = NOW.date()
YESTERDAY = TODAY - timedelta(days=1)
TREE = {"root": ("root",), "middle": ("middle", "root"), "leaf": ("leaf", "middle", "root"), "alone": ("alone",)}
"""Each group's charged groups."""


def used(number: int, group: str, **fields: Any) -> UsageDraft:
    tokens = Tokens(input_tokens=100 + number, output_tokens=number, cached_input_tokens=number)
    slug = f"lab/model-{number % 2}"
    own: dict[str, Any] = {"group_id": group, "charged_groups": TREE[group], "tokens": tokens, "model_slug": slug}
    return draft(number, **{"at": NOW} | own | fields)


class NoLimits:
    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        return ()

    month_changes = 0
    changes = 0

    def alerted(self, group_id: str) -> None:
        return None

    def is_monthly(self, group_id: str, model_slug: str) -> bool:
        return False

    def months_changed(self, since: int, group_id: str) -> bool:
        return False


@dataclass
class Company:
    """Everything between a proxy's spool and finance."""

    kafka: Kafka
    database: Database
    writer: Writer
    spool: Spool
    reader: Reader
    folder: Path

    async def pass_on(self, *drafts: UsageDraft) -> None:
        """Spool and publish; then let metering count."""
        publisher = topics.publishing(self.spool, self.writer)
        for one in drafts:
            await self.spool.put(one)
        async with topics.running(publisher, self.spool):
            await topics.until(lambda: all(mark[1] == mark[2] for mark in publisher.marks()))
        await self.count()

    async def count(self) -> None:
        ledger = transaction.SqlLedger(self.database, lambda _: NOW)
        totals = KafkaTotals(self.writer, lambda: NOW, never)
        counting = flow.Metering(ledger, totals, NoLimits(), lambda: NOW)
        async for batch in self.reader.batches():
            await counting.process(batch)

    async def correct(self, key: str, input_tokens: int, output_tokens: int) -> None:
        made = self.database.write_now(
            lambda connection: corrections_flow.correct(
                corrections.SqlCorrections(connection),
                lambda: NOW,
                event_key=key,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                reason="miscounted",
            )
        )
        await self.relay()
        assert self.database.read_now(partial(published.read, name=published.CORRECTIONS)) == made.producer.sequence
        await self.count()

    async def relay(self) -> None:
        """Let control relay what waits for Kafka, as the only process that does."""

        async def end_of_config() -> int:
            return (await feed.ends(self.kafka, GATEWAY_CONFIG))[0]

        leadership = PostgresLeadership(self.database, "relay")
        relay = ConfigPublisher(self.database, self.writer, leadership, end_of_config, lambda: NOW)
        assert await leadership.take()
        try:
            await relay.take_over()
            await relay.step()
        finally:
            await leadership.release()

    async def records(self, name: str) -> list[ConsumerRecord]:
        return [record for found in (await records.read(self.kafka, name)).values() for record in found]

    async def consume(self) -> dict[tuple[str, date], Counter[str]]:
        """Run the program of the docs; return what it prints, by source and day."""
        program = self.folder / "consumer.py"
        (code,) = re.findall(r"^```python\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
        program.write_text(code, encoding="utf-8")
        publish.write(self.folder / "schemas")  # as `tollgate schemas export schemas` does
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", program, "--once"),
            cwd=self.folder,
            env=os.environ | {"KAFKA_BOOTSTRAP": self.kafka.bootstrap, "TOPIC_PREFIX": self.kafka.prefix},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, self.errors = await running.communicate()
        assert running.returncode == 0, self.errors
        rows = [line.split() for line in out.decode().splitlines()]
        assert {workspace for _, workspace, *_ in rows} == {"ws"}
        names = ("requests", "input", "output")
        return {
            (source, date.fromisoformat(day)): Counter(dict(zip(names, map(int, figures), strict=True)))
            for source, _, day, *figures in rows
        }

    def ledger(self) -> dict[date, events.LedgerTally]:
        found = self.database.read_now(partial(events.tallies, from_day=YESTERDAY, to_day=TODAY))
        return {tally.day: tally for tally in found}


@pytest.fixture
async def company(tmp_path: Path, kafka: Kafka, postgres: Database) -> AsyncIterator[Company]:
    await records.make_topics(kafka)
    postgres.write_now(partial(day_partitions.ensure, today=TODAY))
    sink, _ = topics.opened(tmp_path / "spool")
    made = Company(kafka, postgres, Writer(kafka, "company"), sink, Reader(kafka), tmp_path)
    try:
        await made.reader.start()
        yield made
    finally:
        await made.reader.stop()
        await made.writer.close()
        sink.close()


async def a_days_work(company: Company) -> None:
    """Every group of the tree, every way a request ends, two slugs, a late event, a correction."""
    first = used(0, "leaf", request_metadata={"team": "söarch", "empty": ""})
    others = [used(number, group) for number, group in enumerate([*TREE, "leaf", "leaf", "middle"], 1)]
    ends = [used(20 + number, "leaf", outcome=outcome) for number, outcome in enumerate(Outcome)]
    guessed = used(30, "leaf", usage_source=UsageSource.ESTIMATED, first_byte_ms=None, latency_ms=None)
    late = used(31, "middle", at=NOW - timedelta(days=1))
    await company.pass_on(first, *others, *ends)
    await company.pass_on(guessed, late)
    await company.correct(first.idempotency_key, -7, 3)


async def test_every_record_is_as_its_schema_says(company: Company) -> None:
    await a_days_work(company)
    for name, types in ((USAGE_EVENTS, {"usage", "correction"}), (USAGE_DAILY, set[str]())):
        schema = json.loads((sources.ROOT / f"schemas/json/{name}.json").read_text(encoding="utf-8"))
        valid = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
        found = await company.records(name)
        values = [json.loads(record.value) for record in found]
        assert [error.message for value in values for error in valid.iter_errors(value)] == []
        assert {value.get("kind") for value in values} - {None} == types
        for record, value in zip(found, values, strict=True):
            # of events: one is there where the lab has set a price, the other where calls are traced
            named = set(schema["properties"]) - {"cost", "traceparent"}
            assert set(value) == (named if name == USAGE_EVENTS else set(schema["properties"]))
            headers = {header: content.decode() for header, content in record.headers}
            assert headers["ce_type"] == f"tollgate.{name}"
            assert headers["ce_specversion"] == "1.0"
            if name == USAGE_EVENTS:
                assert headers["ce_id"] == value["idempotencyKey"]
                assert (headers["ce_source"], headers["ce_time"]) == (value["producer"]["instance"], value["timestamp"])
                assert record.key.decode() == ("alone" if value["groupId"] == "alone" else "root")
            else:
                assert record.key.decode() == "/".join([value["groupId"], value["modelSlug"], value["day"]])
                assert headers["ce_id"] == f"{record.key.decode()}/{value['version']}"
                assert (headers["ce_source"], headers["ce_time"]) == ("tollgate/metering", value["updatedAt"])


async def test_the_sums_of_daily_usage_equal_the_ledger_in_a_tree(company: Company) -> None:
    await a_days_work(company)
    newest: dict[bytes, dict[str, Any]] = {}
    for record in await company.records(USAGE_DAILY):
        value = json.loads(record.value)
        if value["version"] > newest.get(record.key, {"version": 0})["version"]:
            newest[record.key] = value
    names = {"requests": "requests", "inputTokens": "input_tokens", "outputTokens": "output_tokens"}
    names |= {"corrections": "corrections", "correctedInputTokens": "corrected_input_tokens"}
    names |= {"correctedOutputTokens": "corrected_output_tokens"}
    counted = company.ledger()
    assert set(counted) == {YESTERDAY, TODAY}
    for day, tally in counted.items():
        of_day = [value for value in newest.values() if value["day"] == str(day)]
        sums = {ours: sum(value[theirs] for value in of_day) for theirs, ours in names.items()}
        assert sums == {ours: getattr(tally, ours) for ours in names.values()}
    assert {value["groupId"] for value in newest.values()} == set(TREE)
    assert counted[TODAY].corrected_input_tokens == -7


def junk_like(value: bytes) -> list[bytes | None]:
    """Return records that an event was bent into, none of which metering counts."""
    whole: dict[str, Any] = json.loads(value) | {"idempotencyKey": "junk"}

    def bent(**fields: Any) -> bytes:
        return json.dumps({name: one for name, one in (whole | fields).items() if one is not ...}).encode()

    million = {"inputTokens": 1_000_000, "outputTokens": 1_000_000}
    made: list[bytes | None] = [None, b"", b"junk", b"\xff\xfe", b"[" * 9000, b'{"kind": "usage"}']
    made += [bent(tokens=million | {"inputTokens": odd}) for odd in (-1, 5.0, 1.5, True, "5", 10**9 + 1)]
    made += [bent(tokens=million, **{name: ...}) for name in ("groupId", "outcome", "producer", "latencyMs")]
    made += [bent(tokens=million, workspaceId=odd) for odd in (7, None, "w" * 65, "w\0")]
    made += [bent(tokens=million, timestamp=odd) for odd in (1_700_000_000, "yesterday", "2026-01-01T00:00:00")]
    made += [bent(tokens=million, kind="gift"), bent(tokens=million, requestMetadata={"a": "b" * 33_000})]
    for one in made:
        with pytest.raises(validity.UnreadableError):
            validity.read(one, ledger_days.EVERY)
    return made


async def test_the_consumer_of_the_docs_books_each_event_once(company: Company) -> None:
    await a_days_work(company)
    expected = {
        (source, day): Counter(
            requests=tally.requests,
            input=tally.input_tokens + tally.corrected_input_tokens,
            output=tally.output_tokens + tally.corrected_output_tokens,
        )
        for source in ("daily", "events")
        for day, tally in company.ledger().items()
    }
    assert await company.consume() == expected
    again = await company.records(USAGE_EVENTS)
    await company.writer.write(USAGE_EVENTS, [KafkaRecord(record.key, record.value) for record in again])
    old = await company.records(USAGE_DAILY)
    await company.writer.write(USAGE_DAILY, [KafkaRecord(record.key, record.value) for record in old[::-1]])
    junk = junk_like(again[0].value)
    await company.writer.write(USAGE_EVENTS, [KafkaRecord(b"root", value) for value in junk])
    other = KafkaRecord(b"another/key/2026-01-01", old[0].value)
    await company.writer.write(
        USAGE_DAILY, [other, KafkaRecord(old[0].key, b'{"version": 99}'), KafkaRecord(b"x", b"[" * 9000)]
    )
    assert await company.consume() == expected, "what comes again, old versions that come late and junk change nothing"
    assert company.errors.decode().count("left out: ") == len(junk) + 3
    await company.pass_on(used(40, "leaf"))
    for source in ("daily", "events"):
        expected[source, TODAY] += Counter(requests=1, input=140, output=40)
    assert await company.consume() == expected


async def test_a_consumer_that_lost_its_file_begins_anew_and_finds_the_same(company: Company) -> None:
    await a_days_work(company)
    first = await company.consume()
    (company.folder / "finance.db").unlink()
    assert await company.consume() == first


def never(key: str, error: Exception) -> None:
    raise AssertionError(key) from error
