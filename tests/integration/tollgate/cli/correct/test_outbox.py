"""The outbox of corrections: gapless numbers, and readers that follow it like a spool."""

import asyncio
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import select

from control.core.refusals import InvalidError
from control.flow import corrections as flow
from control.store import corrections, tables
from metering import app
from metering.store import events
from metering.store import tables as metering_tables
from metering.thresholds import GroupThresholds
from runtime import clock
from runtime.database.engines import Database
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.usage import Kind, Producer, Tokens, UsageEvent
from tests.integration.tollgate.cli.correct.conftest import EVENT
from tests.support import engines
from tests.support.engines import Place
from tests.unit.metering.factories import NOON
from tests.unit.runtime.kafka.fakes import HandTime
from webhooks.app import Dispatcher
from webhooks.store import tables as webhooks_tables

TOMORROW = NOON + timedelta(days=1)
WITHIN_S = 30


def correct(database: Database, input_tokens: int, output_tokens: int = 0) -> UsageEvent:
    return database.write_now(
        lambda connection: flow.correct(
            corrections.SqlCorrections(connection),
            lambda: TOMORROW,
            event_key=EVENT.idempotency_key,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reason="counted twice",
        )
    )


def last(database: Database) -> Producer | None:
    return database.read_now(corrections.last)


def rows(database: Database, table: sqlalchemy.Table) -> list[Any]:
    return list(database.read_now(lambda connection: connection.execute(select(table)).all()))


def test_numbers_are_gapless_also_where_a_correction_is_refused(database: Database) -> None:
    assert last(database) is None
    first = correct(database, -1)
    with pytest.raises(InvalidError):
        correct(database, -10)
    second = correct(database, -9, 3)
    assert (first.producer.sequence, second.producer.sequence) == (1, 2)
    assert first.producer.instance == second.producer.instance
    assert last(database) == second.producer
    sums = database.read_now(lambda connection: corrections.corrected(connection, [EVENT.idempotency_key, "none"]))
    assert sums == {EVENT.idempotency_key: Tokens(input_tokens=-10, output_tokens=3)}


def test_a_refused_first_correction_leaves_no_instance_behind(database: Database) -> None:
    with pytest.raises(InvalidError):
        correct(database, -11)
    assert last(database) is None
    assert rows(database, tables.CORRECTION_COUNTER) == []


async def test_corrections_at_once_never_take_more_than_there_is(database: Database, place: Place) -> None:
    with place.open() as other:
        tries = [asyncio.to_thread(correct, opened, -4) for _ in range(3) for opened in (database, other)]
        results = await asyncio.gather(*tries, return_exceptions=True)
    made = [result for result in results if isinstance(result, UsageEvent)]
    assert sorted(one.producer.sequence for one in made) == [1, 2]
    assert all(isinstance(result, InvalidError) for result in results if not isinstance(result, UsageEvent))


async def test_the_outbox_reads_as_a_partition(database: Database) -> None:
    outbox = corrections.Outbox(database)
    empty = await outbox.read(1, 100)
    assert (empty.first_offset, empty.next_offset, empty.events) == (1, 1, ())
    made = [correct(database, 1) for _ in range(3)]
    batch = await outbox.read(2, 1)
    assert (batch.topic, batch.partition, batch.lane) == ("corrections", 0, "corrections")
    assert (batch.first_offset, batch.next_offset, batch.events) == (2, 3, (made[1],))
    assert (await outbox.read(1, 100)).events == tuple(made)


async def test_waiting_looks_four_times_a_second_until_another_process_has_written_or_the_time_is_over(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = HandTime()
    pauses: list[float] = []
    loop = SimpleNamespace(get_running_loop=lambda: SimpleNamespace(time=time))
    monkeypatch.setattr(corrections, "asyncio", loop)
    with place.open() as other:

        async def wait(offset: int, timeout_s: float, *, writing: bool) -> list[float]:
            async def pause(seconds: float) -> None:
                pauses.append(seconds)
                await time.pause(seconds)
                if writing:
                    await asyncio.to_thread(correct, other, 1)

            pauses.clear()
            loop.sleep = pause
            await corrections.Outbox(database).wait(offset, timeout_s)
            return pauses

        assert await wait(1, 0.625, writing=False) == [0.25, 0.25, 0.125]
        assert await wait(2, 3600, writing=True) == [0.25, 0.25], "the first alone is not what is waited for"
        assert await wait(2, 3600, writing=False) == [], "it is there"


async def test_an_outage_is_waited_out(database: Database) -> None:
    made = correct(database, 1)
    with engines.away(database, 2) as left:
        assert (await corrections.Outbox(database).read(1, 1)).events == (made,)
    assert left() == 0


async def test_metering_and_webhooks_follow_it(database: Database) -> None:
    unwanted: list[Any] = []
    metering = app.EmbeddedMetering(database, GroupThresholds(), app.Handover(unwanted.extend), clock.steady())
    dispatcher = Dispatcher(database, Vault(bytes(32)), clock.steady(), Settings(webhook_linger_ms=0))
    limits = rows(database, metering_tables.LIMIT_DAILY)
    made = correct(database, -3, 2)
    tasks = [
        asyncio.create_task(follow(corrections.Outbox(database))) for follow in (metering.follow, dispatcher.follow)
    ]
    try:
        await both_pass(metering, dispatcher, 2)
        again = correct(database, 1)
        await both_pass(metering, dispatcher, 3)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await dispatcher.close()
    of_key = {row.idempotency_key: row for row in rows(database, events.USAGE_EVENT)}
    row = of_key[made.idempotency_key]
    assert (row.kind, row.day, row.input_tokens, row.output_tokens) == ("correction", TOMORROW.date(), -3, 2)
    (daily,) = [row for row in rows(database, metering_tables.USAGE_DAILY) if row.day == TOMORROW.date()]
    assert (daily.requests, daily.input_tokens, daily.output_tokens) == (0, 0, 0)
    assert (daily.corrections, daily.corrected_input_tokens, daily.corrected_output_tokens) == (2, -2, 2)
    assert rows(database, metering_tables.LIMIT_DAILY) == limits
    assert unwanted == []
    bodies = [json.loads(row.body) for row in rows(database, webhooks_tables.DELIVERY)]
    sent = [event for body in bodies for event in body["data"]["events"]]
    assert [event["idempotencyKey"] for event in sent] == [made.idempotency_key, again.idempotency_key]
    assert (sent[0]["kind"], sent[0]["corrects"], sent[0]["reason"]) == (
        Kind.CORRECTION.value,
        EVENT.idempotency_key,
        "counted twice",
    )


async def both_pass(metering: app.EmbeddedMetering, dispatcher: Dispatcher, offset: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while min(reader.committed(corrections.TOPIC, 0) for reader in (metering, dispatcher)) < offset:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
