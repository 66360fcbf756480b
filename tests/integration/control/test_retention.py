"""What control keeps no longer, on both engines."""

from datetime import timedelta

from sqlalchemy import Connection

from control import retention
from control.core.records import AuditEntry
from control.retention import Retention
from control.store import audit
from control.store.audit import Audit
from runtime.config import log as config_log
from runtime.database.engines import Database
from schemas.config import ConfigKind
from tests.unit.control.fakes import NOW

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
    await Retention(database, lambda: NOW + 13 * DAY, audit_days=5).remove_all()
    assert noted(database) == [8, 9, 10, 11]


async def test_more_than_a_step_goes_too(database: Database) -> None:
    note(database, *[0] * (retention.STEP + 1), 10)
    await Retention(database, lambda: NOW + 10 * DAY, audit_days=5, pause=at_once).remove_all()
    assert noted(database) == [10]


async def at_once(_s: float) -> None:
    """Rest for no time."""


async def test_a_clock_far_ahead_removes_no_more_than_a_week_too_much(database: Database) -> None:
    note(database, 0, 5, 9)
    await Retention(database, lambda: NOW + 1000 * DAY, audit_days=10).remove_all()
    assert noted(database) == [9]
    await Retention(database, lambda: NOW + 2000 * DAY, audit_days=10).remove_all()
    assert noted(database) == [9]


async def test_changes_go_once_they_are_old_and_everybody_has_them_where_this_process_is_the_only_reader(
    database: Database,
) -> None:
    for _ in range(3):
        database.write_now(lambda connection: config_log.append(connection, NOW, ConfigKind.GROUP, "g", None))
    later = NOW + config_log.KEPT + DAY
    await Retention(database, lambda: later, audit_days=5).remove_all()
    assert len(database.read_now(lambda connection: config_log.read_since(connection, 0))) == 3
    await Retention(database, lambda: NOW + config_log.KEPT, audit_days=5, relayed=lambda: 3).remove_all()
    assert len(database.read_now(lambda connection: config_log.read_since(connection, 0))) == 3
    await Retention(database, lambda: later, audit_days=5, relayed=lambda: 2).remove_all()
    assert [change.version for change in database.read_now(lambda view: config_log.read_since(view, 0))] == [3]
