"""What the overview keeps of the past days: only what takes long to read, and not for long."""

from datetime import timedelta

import pytest

from control.console import overview
from control.console.overview import PastDays
from metering.store import transaction
from runtime.database.engines import Database
from tests.unit.metering.factories import NOON, SLUG, HandClock, batch, event

TODAY = NOON.date() + timedelta(days=1)


class Stopwatch:
    """A steady clock by which each read takes `took_s`."""

    def __init__(self, took_s: float) -> None:
        self.now_s = 0.0
        self.took_s = took_s

    def __call__(self) -> float:
        self.now_s += self.took_s
        return self.now_s


def count(database: Database, number: int, workspace_id: str = "lab") -> None:
    events = [event(number, workspace_id=workspace_id, group_id=f"group of {workspace_id}")]
    database.write_now(lambda connection: transaction.apply(connection, batch(events, number), HandClock(NOON)))


def requests(database: Database, kept: PastDays, workspace_id: str = "lab", days: int = 0) -> int:
    today = TODAY + timedelta(days=days)
    found = database.read_now(lambda connection: kept.read(connection, workspace_id, today))
    return found[NOON.date(), SLUG].requests


@pytest.mark.parametrize(("took_s", "seen"), [(0.01, 2), (0.1, 1)])
def test_what_is_read_fast_is_read_each_time(database: Database, took_s: float, seen: int) -> None:
    kept = PastDays(Stopwatch(took_s))
    count(database, 1)
    assert requests(database, kept) == 1
    count(database, 2)
    assert requests(database, kept) == seen


def test_it_is_read_again_after_a_while_and_on_another_day(database: Database) -> None:
    watch = Stopwatch(0.1)
    kept = PastDays(watch)
    count(database, 1)
    assert requests(database, kept) == 1
    count(database, 2)
    watch.now_s += overview.FRESH_S
    assert requests(database, kept) == 2
    count(database, 3)
    assert requests(database, kept, days=1) == 3


def test_it_is_kept_apart_and_within_its_bound(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MOST_KEPT", 1)
    kept = PastDays(Stopwatch(0.1))
    count(database, 1)
    count(database, 2, "other")
    assert (requests(database, kept), requests(database, kept, "other")) == (1, 1)
    count(database, 3)
    count(database, 4, "other")
    assert (requests(database, kept, "other"), requests(database, kept)) == (1, 2)
