"""Two dispatcher processes on one PostgreSQL: shared claims, leases, fairness (contract 5, counting 7)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from runtime import clock
from runtime.database.engines import Database
from tests.integration.webhooks import worker
from tests.integration.webhooks.scene import Receiver, hang, serving, status
from tests.support.events import as_contract
from tests.unit.webhooks import kit
from webhooks.store import deliveries, tables

PATIENCE_S = 120.0
LEASE_S = 4.0
SWIFT = {"webhook_attempt_timeout_s": LEASE_S - 0.5}
PATIENT = {"webhook_attempt_timeout_s": 60, "webhook_retry_for_s": 120}


def put(opened: Database, labs: Sequence[str], each: int, prefix: str = "") -> None:
    """Put `each` deliveries of one event for every lab, their labs mixed."""
    now = clock.steady()()
    drafts = [
        kit.draft(f"{prefix}{lab}-{number}", kit.event(number + 1, lab, key=f"{prefix}{lab}-{number}"))
        for number in range(each)
        for lab in labs
    ]
    batch = kit.batch(*(as_contract(draft.events[0].event) for draft in drafts), topic=f"spool/{prefix}")
    opened.write_now(lambda connection: deliveries.enqueue(connection, drafts, [batch], now))


async def until(holds: Callable[[], bool]) -> None:
    """Return when `holds`: other processes bring it about, and none of them tells."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def statuses(opened: Database) -> Counter[str]:
    query = select(tables.DELIVERY.c.status)
    return Counter(opened.read_now(lambda connection: connection.execute(query).scalars().all()))


def attempts(opened: Database) -> list[Any]:
    query = select(tables.ATTEMPT, tables.DELIVERY.c.workspace_id, tables.DELIVERY.c.first_attempt_at).join(
        tables.DELIVERY, tables.DELIVERY.c.id == tables.ATTEMPT.c.delivery_id
    )
    return list(opened.read_now(lambda connection: connection.execute(query).all()))


def by(receiver: Receiver, query: str) -> Counter[str]:
    """Count the attempts at each delivery that one dispatcher made."""
    return Counter(one.headers["x-baseten-request-id"] for one in receiver.received if one.query == query)


def place(receiver: Receiver, name: str) -> str:
    return receiver.url.split("?")[0] + f"?{name}"


async def test_each_delivery_is_attempted_once_by_one_of_two(postgres: Database, postgres_migrated_url: str) -> None:
    labs = [f"lab-{number:02}" for number in range(10)]
    put(postgres, labs, 60)
    async with serving(status(200)) as receiver:
        with (
            worker.running(postgres_migrated_url, dict.fromkeys(labs, place(receiver, "one"))),
            worker.running(postgres_migrated_url, dict.fromkeys(labs, place(receiver, "two"))),
        ):
            for round_ in range(4):
                await asyncio.to_thread(put, postgres, labs, 30, f"{round_}-")
                await until(lambda: statuses(postgres)["pending"] < 100)
            await until(lambda: statuses(postgres) == {"delivered": 10 * (60 + 4 * 30)})
        assert set((by(receiver, "one") + by(receiver, "two")).values()) == {1}
        assert len(by(receiver, "one")) > 100
        assert len(by(receiver, "two")) > 100
    assert len(attempts(postgres)) == len(receiver.received) == 1800


async def test_what_a_killed_dispatcher_had_claimed_is_attempted_by_the_other_after_the_lease(
    postgres: Database, postgres_migrated_url: str
) -> None:
    async def answer(receiver: Receiver, send: Any) -> None:
        await (hang if receiver.received[-1].query == "one" else status(200))(receiver, send)

    put(postgres, ["lab"], 20)
    async with serving(answer) as receiver:
        with worker.running(postgres_migrated_url, {"lab": place(receiver, "one")}, LEASE_S, **SWIFT) as one:
            await until(lambda: len(receiver.received) == 4)
            taken = by(receiver, "one")
            one.kill()
            one.wait(10)
            with worker.running(postgres_migrated_url, {"lab": place(receiver, "two")}, LEASE_S, **SWIFT):
                await until(lambda: statuses(postgres) == {"delivered": 20})
        assert set(by(receiver, "two").values()) == {1}
        assert len(by(receiver, "two")) == 20
    again = [row for row in attempts(postgres) if row.delivery_id in taken]
    lease = timedelta(seconds=LEASE_S)
    assert len(again) == 4
    assert all(row.at - row.first_attempt_at >= lease for row in again)
    others = [row for row in attempts(postgres) if row.delivery_id not in taken]
    assert max(row.at for row in others) < min(row.at for row in again)


async def test_hanging_receivers_hold_no_other_lab_back(postgres: Database, postgres_migrated_url: str) -> None:
    hanging, well = ["hangs-1", "hangs-2"], [f"lab-{number:02}" for number in range(18)]
    put(postgres, hanging + well, 20)
    async with serving(hang) as slow, serving(status(200)) as fast:
        places = dict.fromkeys(hanging, place(slow, "")) | dict.fromkeys(well, place(fast, ""))
        with (
            worker.running(postgres_migrated_url, places, **PATIENT),
            worker.running(postgres_migrated_url, places, **PATIENT),
        ):
            await until(lambda: statuses(postgres)["delivered"] == 20 * len(well))
            assert statuses(postgres) == {"delivered": 360, "pending": 40}
            # Nobody waited for an attempt that hangs: not one of them has come to its end yet.
            assert {row.status_code for row in attempts(postgres)} == {200}
            assert 0 < len(slow.received) <= 2 * 2 * 4
