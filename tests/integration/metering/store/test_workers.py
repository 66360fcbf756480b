"""Several metering workers on one PostgreSQL: they wait for each other, never in a circle."""

import asyncio

import pytest
from sqlalchemy import Connection, text

from metering.store import day_partitions, transaction
from runtime.database.engines import Database
from tests.unit.metering.factories import NOON, HandClock, batch, event

GROUPS = [f"group-{number:02d}" for number in range(20)]
SLOWLY = """
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$;
CREATE TRIGGER slowly BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION slowly()
"""


@pytest.mark.parametrize(("table", "own"), [("usage_daily", "{group}"), ("limit_daily", "{worker} {group}")])
async def test_workers_with_the_same_counters_never_deadlock(postgres: Database, table: str, own: str) -> None:
    """Each row takes a moment, so that both are surely in the middle of the same counters."""

    def prepare(connection: Connection) -> None:
        day_partitions.ensure(connection, NOON.date())
        connection.execute(text(SLOWLY.format(table=table)))

    def work(worker: int) -> None:
        ordered = GROUPS if worker else GROUPS[::-1]
        events = [
            event(
                place,
                number=place + worker * 1000,
                instance=f"proxy-{worker}",
                group_id=own.format(group=group, worker=worker),
                charged_groups=(group,),
            )
            for place, group in enumerate(ordered, 1)
        ]
        read = batch(events, topic=f"spool-{worker}", lane=str(worker))
        postgres.write_now(lambda connection: transaction.apply(connection, read, HandClock()))

    postgres.write_now(prepare)
    await asyncio.gather(*(asyncio.to_thread(work, number) for number in (0, 1)))
    totals, _ = postgres.read_now(lambda connection: transaction.current(connection, [NOON.date()]))
    assert sorted(lane.lane for lane in totals) == ["0", "1"]
    assert [[total.requests for total in lane.limits] for lane in totals] == [[1] * len(GROUPS)] * 2
