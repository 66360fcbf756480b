"""The ledger's clock was a day ahead and is set right: who follows the events misses none (ADR 22)."""

from datetime import timedelta
from typing import Any

import pytest
from litestar import Litestar

from control import app as control_app
from metering.store import ledger_clock
from runtime.database.engines import Database
from runtime.settings import Settings
from schemas.base import rfc3339
from tests.integration.control import helpers
from tests.integration.control.api.test_events import PATH, Counter
from tests.integration.control.helpers import VAULT, Lab
from tests.unit.metering.factories import NOON, HandClock

DAY = timedelta(days=1)
HELD_S = 60


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOON + DAY)


@pytest.fixture
def app(database: Database, clock: HandClock) -> Litestar:
    router = control_app.build(
        control_app.desk(database, VAULT, clock, Settings(), helpers.at_once, ledger_now=lambda _: clock())
    )
    return Litestar([router], exception_handlers=control_app.UNROUTED, logging_config=None)


class Follower:
    """Reads on from where it was."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._query: dict[str, Any] = {"start_time": rfc3339(NOON - DAY), "order": "recorded", "limit": 3}
        self.found: list[str] = []

    async def read(self) -> int:
        """Read all there is; return how many events were found in all."""
        more = True
        while more:
            page = (await self._lab.client.get(PATH, params=self._query)).json()
            self.found += [item["idempotencyKey"] for item in page["items"]]
            self._query = {"cursor": page["pagination"]["cursor"], "limit": 3}
            more = page["pagination"]["has_more"]
        return len(self.found)


async def test_a_day_ahead_and_right_again_loses_a_follower_nothing(
    lab: Lab, database: Database, clock: HandClock
) -> None:
    counter, follower = Counter(database, clock, lab.id), Follower(lab)
    first = [counter.record(timestamp=NOON) for _ in range(10)]
    clock.advance(seconds=HELD_S + 1)
    assert await follower.read() == 10
    clock.now -= DAY
    second = [counter.record(timestamp=NOON) for _ in range(10)]
    assert await follower.read() == 10
    clock.advance(seconds=2 * HELD_S + 1)
    assert await follower.read() == 20
    assert sorted(follower.found) == sorted(first + second)


async def test_what_was_recorded_last_before_the_clock_was_set_back_is_shown_without_a_further_event(
    lab: Lab, database: Database, clock: HandClock
) -> None:
    counter, follower = Counter(database, clock, lab.id), Follower(lab)
    counter.record(timestamp=NOON)
    clock.now -= DAY
    assert database.write_now(lambda connection: ledger_clock.note_set_back(connection, clock()))
    assert not database.write_now(lambda connection: ledger_clock.note_set_back(connection, clock()))
    clock.advance(seconds=2 * HELD_S - 1)
    assert await follower.read() == 0
    clock.advance(seconds=2)
    assert await follower.read() == 1


def test_it_goes_at_half_the_speed_until_it_is_right_and_never_back(
    lab: Lab, database: Database, clock: HandClock
) -> None:
    def ahead() -> timedelta:
        return database.read_now(lambda connection: ledger_clock.ahead(connection, clock()))

    counter = Counter(database, clock, lab.id)
    counter.record(timestamp=NOON)
    assert ahead() == timedelta(0)
    clock.now -= DAY
    counter.record(timestamp=NOON)
    before = ahead()
    assert timedelta(0) <= before - DAY <= timedelta(milliseconds=1)
    clock.advance(hours=12)
    assert ahead() == before - timedelta(hours=6)
    counter.record(timestamp=NOON)
    assert ahead() - (before - timedelta(hours=6)) <= timedelta(milliseconds=1)
    clock.advance(hours=37)
    assert ahead() == timedelta(0)
