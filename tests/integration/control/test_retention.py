"""What control keeps no longer, on both engines."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection

from control import retention
from control.core.records import AuditEntry
from control.retention import Retention
from control.store import audit, corrections
from control.store.audit import Audit
from control.store.corrections import SqlCorrections
from runtime.config import log as config_log
from runtime.database.engines import Database
from schemas.config import ConfigKind
from schemas.usage import UsageDraft
from tests.integration.control import helpers
from tests.unit.control.fakes import NOW
from tests.unit.metering.factories import correction

DAY = timedelta(days=1)


def note(database: Database, *days: int) -> None:
    def write(connection: Connection) -> None:
        for day in days:
            at = NOW + day * DAY
            Audit(connection, "me", at).note("w", "a", f"{at}")

    database.write_now(write)


def noted(database: Database) -> list[int]:
    entries: list[AuditEntry] = list(database.read_now(lambda connection: audit.newest(connection, None, 1000)))
    return [(entry.at - NOW).days for entry in entries]


async def test_the_audit_log_goes_beyond_its_days_however_much_there_is(database: Database) -> None:
    note(database, *range(12))
    assert retention.STEP > 5
    await Retention(database, lambda: NOW + 13 * DAY, audit_days=5, ledger_days=100).remove_all()
    assert noted(database) == [8, 9, 10, 11]


async def test_more_than_a_step_goes_too(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    note(database, *[0] * (retention.STEP + 1), 10)
    await Retention(database, lambda: NOW + 10 * DAY, audit_days=5, ledger_days=100, pause=at_once).remove_all()
    assert noted(database) == [10]


async def at_once(_s: float) -> None:
    """Rest for no time."""


async def test_a_clock_far_ahead_removes_no_more_than_a_week_too_much(database: Database) -> None:
    note(database, 0, 5, 9)
    await Retention(database, lambda: NOW + 1000 * DAY, audit_days=10, ledger_days=100).remove_all()
    assert noted(database) == [9]
    await Retention(database, lambda: NOW + 2000 * DAY, audit_days=10, ledger_days=100).remove_all()
    assert noted(database) == [9]


async def test_changes_go_once_they_are_old_and_everybody_has_them_where_this_process_is_the_only_reader(
    database: Database,
) -> None:
    for _ in range(3):
        database.write_now(lambda connection: config_log.append(connection, NOW, ConfigKind.GROUP, "g", None))
    later = NOW + config_log.KEPT + DAY
    await Retention(database, lambda: later, audit_days=5, ledger_days=100).remove_all()
    assert len(helpers.changes(database)) == 3
    await Retention(
        database, lambda: NOW + config_log.KEPT, audit_days=5, ledger_days=100, relayed=lambda: 3
    ).remove_all()
    assert len(helpers.changes(database)) == 3
    await Retention(database, lambda: later, audit_days=5, ledger_days=100, relayed=lambda: 2).remove_all()
    assert [change.version for change in helpers.changes(database)] == [3]


def correct(database: Database, *days: int) -> None:
    def write(connection: Connection) -> None:
        outbox = SqlCorrections(connection)
        outbox.lock()
        for day in days:
            outbox.put(draft(day), NOW + day * DAY)

    database.write_now(write)


def draft(number: int) -> UsageDraft:
    made = correction(number + 1, number=number)
    return UsageDraft(**{name: getattr(made, name) for name in UsageDraft.model_fields})


async def test_corrections_go_a_week_after_the_ledgers_days_once_every_reader_has_them(database: Database) -> None:
    correct(database, 0, 1, 2, 3)
    taken = 2

    def retention_at(day: int) -> Retention:
        return Retention(database, lambda: NOW + day * DAY, audit_days=5, ledger_days=100, taken=lambda _: taken)

    def left() -> list[int]:
        found = database.read_now(lambda connection: corrections.read(connection, 1, 10))
        return [one.producer.sequence for one in found]

    correct(database, 108)
    await retention_at(108).remove_all()
    assert left() == [2, 3, 4, 5], "the first alone is older than 107 days"
    await retention_at(200).remove_all()
    assert left() == [3, 4, 5], "not what a reader has not taken"
    taken = 5
    await retention_at(1000).remove_all()
    assert left() == [5], "a clock far ahead of the newest is not believed"
