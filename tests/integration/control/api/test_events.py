"""The ledger's events over the API: both orders, the hold-back, cursors, walls between tenants (contract 2.5)."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from litestar import Litestar
from sqlalchemy import Connection

from control import app as control_app
from control.api import common
from domain.sources import EventBatch
from metering.core.sums import Totals
from metering.store import transaction
from runtime.clock import Clock, steady
from runtime.database import engines as databases
from runtime.database.engines import Database
from runtime.settings import Settings
from schemas.base import rfc3339
from schemas.billing import LedgerEvent
from schemas.delivery import BillingEvent
from schemas.usage import UsageEvent
from tests.integration.control import helpers
from tests.integration.control.helpers import VAULT, Lab
from tests.support import engines
from tests.unit.metering.factories import NOON, HandClock, batch, correction, event

PATH = "/v1/gateway/events"
START = rfc3339(NOON - timedelta(hours=1))
HELD = timedelta(seconds=60)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def app(database: Database, clock: HandClock) -> Litestar:
    router = control_app.build(
        control_app.desk(database, VAULT, clock, Settings(), helpers.at_once, ledger_now=lambda _: clock())
    )
    return Litestar([router], exception_handlers=control_app.UNROUTED, logging_config=None)


class Counter:
    """Takes events into the ledger, as metering does, at the clock's moment."""

    def __init__(self, database: Database, clock: HandClock, workspace_id: str) -> None:
        self._database = database
        self._clock = clock
        self._workspace_id = workspace_id
        self._next = 1

    def event(self, **fields: Any) -> UsageEvent:
        return event(self._next, workspace_id=self._workspace_id, **fields)

    def record(self, **fields: Any) -> str:
        """Record one event; return its key."""
        return self.record_event(self.event(**fields))

    def record_event(self, made: UsageEvent) -> str:
        first, self._next = self._next, self._next + 1
        stretch = batch([made], first)
        self._database.write_now(lambda connection: transaction.apply(connection, stretch, self._clock))
        return made.idempotency_key


@pytest.fixture
async def counter(database: Database, clock: HandClock, lab: Lab) -> AsyncIterator[Counter]:
    yield Counter(database, clock, lab.id)


async def keys(lab: Lab, **query: Any) -> list[str]:
    answer = await lab.client.get(PATH, params={"start_time": START, **query})
    assert answer.status_code == 200, answer.text
    return [item["idempotencyKey"] for item in answer.json()["items"]]


def test_it_has_the_webhooks_fields() -> None:
    assert set(LedgerEvent.model_fields) == set(BillingEvent.model_fields) | {
        "recorded_at",
        "group_id",
        "parent_groups",
    }


async def test_an_event_is_shown_whole_once_the_hold_back_is_over(lab: Lab, counter: Counter, clock: HandClock) -> None:
    made = counter.event(request_metadata={"team": "a"}, parent_groups=("parent", "root"))
    counter.record_event(made)
    clock.now += HELD
    assert await keys(lab) == []
    clock.now += timedelta(microseconds=1)
    answer = await lab.client.get(PATH, params={"start_time": START})
    assert answer.json() == {
        "items": [
            {
                "idempotencyKey": made.idempotency_key,
                "timestamp": rfc3339(NOON),
                "requestId": made.request_id,
                "requestMetadata": {"team": "a"},
                "groupId": made.group_id,
                "parentGroups": ["parent", "root"],
                "modelSlug": made.model_slug,
                "externalEntityId": made.external_entity_id,
                "externalCustomerId": made.external_entity_id,
                "apiKeyPrefix": made.api_key_prefix,
                "tokens": {"inputTokens": 10, "outputTokens": 5, "cachedInputTokens": 2},
                "usageSource": "provider",
                "outcome": "complete",
                "recordedAt": rfc3339(NOON),
            }
        ],
        "pagination": {"has_more": False, "cursor": None},
    }


async def test_a_correction_has_its_own_fields(lab: Lab, counter: Counter, clock: HandClock) -> None:
    counter.record_event(correction(1, workspace_id=lab.id))
    clock.now += 2 * HELD
    (item,) = (await lab.client.get(PATH, params={"start_time": START})).json()["items"]
    assert (item["kind"], item["tokens"]["inputTokens"]) == ("correction", -3)
    assert item["reason"] == "counted the cache twice"
    assert item["corrects"]


async def test_by_timestamp_pages_go_by_admission(lab: Lab, counter: Counter, clock: HandClock) -> None:
    late = counter.record(timestamp=NOON - timedelta(minutes=2))
    later = counter.record(timestamp=NOON - timedelta(minutes=1))
    earliest = counter.record(timestamp=NOON - timedelta(minutes=3))
    clock.now += 2 * HELD
    assert await keys(lab) == [earliest, late, later]
    seen: list[str] = []
    query: dict[str, Any] = {"start_time": START, "limit": 2}
    while True:
        page = (await lab.client.get(PATH, params=query)).json()
        seen += [item["idempotencyKey"] for item in page["items"]]
        if not page["pagination"]["has_more"]:
            break
        query = {"cursor": page["pagination"]["cursor"], "limit": 2}
    assert seen == [earliest, late, later]
    assert page["pagination"]["cursor"] is None


async def test_the_window_includes_its_start_and_not_its_end(lab: Lab, counter: Counter, clock: HandClock) -> None:
    first = counter.record(timestamp=NOON)
    counter.record(timestamp=NOON + timedelta(seconds=1))
    clock.now += 2 * HELD
    assert await keys(lab, start_time=rfc3339(NOON), end_time=rfc3339(NOON + timedelta(seconds=1))) == [first]


async def test_filters_go_by_the_events_own_values(lab: Lab, counter: Counter, clock: HandClock) -> None:
    one = counter.record(external_entity_id="customer-1", api_key_prefix="sky_aaaaaaaaaaaa", request_id="one")
    two = counter.record(external_entity_id="customer-2", api_key_prefix="sky_bbbbbbbbbbbb", request_id="two")
    clock.now += 2 * HELD
    assert await keys(lab, external_entity_id="customer-1") == [one]
    assert await keys(lab, api_key_prefix="sky_bbbbbbbbbbbb") == [two]
    assert await keys(lab, request_id="two") == [two]
    first = await lab.client.get(
        PATH, params={"start_time": START, "external_entity_id": "customer-1", "order": "recorded"}
    )
    cursor = first.json()["pagination"]["cursor"]
    assert (await lab.client.get(PATH, params={"cursor": cursor})).json()["items"] == []
    other = await lab.client.get(PATH, params={"cursor": cursor, "external_entity_id": "customer-2"})
    assert (other.status_code, other.json()["error"]["param"]) == (400, "external_entity_id")


async def test_a_follower_misses_nothing_and_sees_nothing_twice(lab: Lab, counter: Counter, clock: HandClock) -> None:
    """Late events come between its pages; some share one moment of the ledger's clock."""
    dice = random.Random(5)
    expected: list[str] = []
    seen: list[str] = []
    query: dict[str, Any] = {"start_time": START, "order": "recorded", "limit": 3}
    for _ in range(60):
        late = [NOON - timedelta(minutes=dice.randrange(50)) for _ in range(dice.randrange(4))]
        expected += [counter.record(timestamp=moment) for moment in late]
        clock.advance(seconds=dice.choice([0, 1, 30]))
        page = (await lab.client.get(PATH, params=query)).json()
        seen += [item["idempotencyKey"] for item in page["items"]]
        query = {"cursor": page["pagination"]["cursor"], "limit": 3}
    clock.advance(hours=1)
    while (page := (await lab.client.get(PATH, params=query)).json())["items"]:
        seen += [item["idempotencyKey"] for item in page["items"]]
        query = {"cursor": page["pagination"]["cursor"], "limit": 3}
    assert len(expected) > 50
    assert sorted(seen) == sorted(expected)
    assert page["pagination"] == {"has_more": False, "cursor": query["cursor"]}


async def test_another_lab_sees_nothing_of_it(lab: Lab, other: Lab, counter: Counter, clock: HandClock) -> None:
    counter.record()
    clock.now += 2 * HELD
    assert await keys(lab) != []
    assert await keys(other) == []
    cursor = (await lab.client.get(PATH, params={"start_time": START, "order": "recorded"})).json()["pagination"][
        "cursor"
    ]
    assert (await other.client.get(PATH, params={"cursor": cursor})).json()["items"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({}, "start_time"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": "2026-01-01T00:00:00"}, "start_time"),
        ({"start_time": "0001-01-01T00:00:00+14:00"}, "start_time"),
        ({"start_time": START, "end_time": "9999-12-31T23:59:59-14:00"}, "end_time"),
        ({"start_time": START, "end_time": rfc3339(NOON - timedelta(hours=1, milliseconds=1))}, "end_time"),
        ({"start_time": START, "order": "size"}, "order"),
        ({"start_time": START, "limit": 0}, "limit"),
        ({"cursor": "e30"}, "cursor"),
        ({"cursor": "ä"}, "cursor"),
    ],
)
async def test_a_wrong_query_names_the_field(lab: Lab, query: dict[str, Any], param: str) -> None:
    answer = await lab.client.get(PATH, params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_cursor_belongs_to_its_window(lab: Lab) -> None:
    cursor = (await lab.client.get(PATH, params={"start_time": START, "order": "recorded"})).json()["pagination"][
        "cursor"
    ]
    own = {"cursor": cursor, "order": "recorded"}
    for same in (START, START.replace("Z", "+00:00")):
        assert (await lab.client.get(PATH, params=own | {"start_time": same})).status_code == 200
    for name, other in (("start_time", rfc3339(NOON)), ("end_time", rfc3339(NOON - timedelta(hours=2)))):
        answer = await lab.client.get(PATH, params=own | {name: other})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


async def test_a_follower_keeps_its_cursor_from_before_cursors_knew_their_start(
    lab: Lab, counter: Counter, clock: HandClock
) -> None:
    first = counter.record()
    clock.now += 2 * HELD
    held = common.cursor_of(("recorded", NOON - HELD, "", None, None, None))
    for query in ({"cursor": held}, {"cursor": held, "start_time": START}):
        page = (await lab.client.get(PATH, params=query)).json()
        assert [item["idempotencyKey"] for item in page["items"]] == [first]


async def test_an_empty_window_is_no_error(lab: Lab, clock: HandClock) -> None:
    assert await keys(lab, end_time=START) == []
    assert await keys(lab, start_time=rfc3339(NOON + timedelta(days=400))) == []


@pytest.mark.parametrize(("held_s", "warns"), [(30.9, True), (0, True), (31, False), (60, False)])
def test_a_hold_back_that_a_transaction_may_outlive_is_said_at_start(
    database: Database, clock: HandClock, caplog: pytest.LogCaptureFixture, held_s: float, warns: bool
) -> None:
    control_app.desk(database, VAULT, clock, Settings(events_hold_back_s=held_s), helpers.at_once)
    assert [record.getMessage().split(" is ")[0] for record in caplog.records] == ["events_hold_back_s"] * warns


class Dawdler:
    """Lets `store.apply` of one event come back only when told: its transaction has counted and is not committed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held: UsageEvent) -> None:
        self.counted = threading.Event()
        self.may_commit = threading.Event()
        self._held = held
        self._apply = transaction.apply
        monkeypatch.setattr(transaction, "apply", self)

    def __call__(self, connection: Connection, stretch: EventBatch, clock: Clock) -> Totals:
        totals = self._apply(connection, stretch, clock)
        if self._held in stretch.events:
            self.counted.set()
            assert self.may_commit.wait(4)
        return totals


def worker(database: Database, own: datetime) -> transaction.SqlLedger:
    """A metering worker on PostgreSQL as it runs, whose machine's clock says `own`."""
    return transaction.SqlLedger(database, partial(databases.now, clock=HandClock(own)))


async def test_a_follower_misses_nothing_of_a_worker_that_commits_late_and_whose_clock_is_wrong(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers count at once. The first commits last, and both their clocks are minutes behind the database's."""
    onboarded = helpers.onboard(postgres, "lab", "Acme")
    today = postgres.read_now(lambda connection: databases.now(connection, steady()))
    engines.open_day(postgres, today.date())
    own: dict[str, Any] = {"timestamp": today, "workspace_id": onboarded.workspace_id}
    first, second = (event(number, group_id=f"group-{number}", **own) for number in (1, 2))
    dawdler = Dawdler(monkeypatch, first)
    ten, five = (today - timedelta(minutes=minutes) for minutes in (10, 5))
    late = asyncio.create_task(worker(postgres, ten).apply(batch([first], topic="late", lane="late")))
    assert await asyncio.to_thread(dawdler.counted.wait, 4)
    await worker(postgres, five).apply(batch([second], topic="early", lane="early"))
    ahead = timedelta(0)

    def ledger_now(connection: Connection) -> datetime:
        return databases.now(connection, steady()) + ahead

    router = control_app.build(
        control_app.desk(postgres, VAULT, steady(), Settings(), helpers.at_once, ledger_now=ledger_now)
    )
    async with helpers.client(Litestar([router], logging_config=None), onboarded.api_key) as client:
        query: dict[str, Any] = {"start_time": rfc3339(today - timedelta(hours=1)), "order": "recorded"}
        for seconds in (0, 30, 54):
            ahead = timedelta(seconds=seconds)
            page = (await client.get(PATH, params=query)).json()
            assert page["items"] == []
            query = {"cursor": page["pagination"]["cursor"]}
        dawdler.may_commit.set()
        await late
        ahead = timedelta(seconds=61)
        page = (await client.get(PATH, params=query)).json()
    assert [item["idempotencyKey"] for item in page["items"]] == [first.idempotency_key, second.idempotency_key]


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)])
async def test_unless_told_otherwise_the_hold_back_goes_by_the_databases_clock(
    postgres: Database, off: timedelta
) -> None:
    """Control's own clock is an hour off: behind, it would show nothing; ahead, what is not an hour old."""
    onboarded = helpers.onboard(postgres, "lab", "Acme")
    theirs = postgres.read_now(lambda connection: databases.now(connection, steady()))
    engines.open_day(postgres, theirs.date())
    recorded_at = HandClock(theirs - HELD)
    counter = Counter(postgres, recorded_at, onboarded.workspace_id)
    old = counter.record(timestamp=theirs)
    recorded_at.now = theirs
    counter.record(timestamp=theirs)
    router = control_app.build(control_app.desk(postgres, VAULT, HandClock(theirs + off), Settings(), helpers.at_once))
    async with helpers.client(Litestar([router], logging_config=None), onboarded.api_key) as client:
        query = {"start_time": rfc3339(theirs - timedelta(hours=1)), "order": "recorded"}
        page = (await client.get(PATH, params=query)).json()
    assert [item["idempotencyKey"] for item in page["items"]] == [old]
