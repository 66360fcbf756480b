"""Usage alerts: kept by metering, each once, and handed to the dispatcher, each once (contract 2.5, counting 5).

Never keeps an alert twice: its limit, share and period are the key.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import BigInteger, Column, Connection, Date, Index, Integer, String, Table, bindparam, select, update

from domain import days
from metering.core.alerts import Alert
from runtime.database import statements
from runtime.database.engines import METADATA, UtcDateTime
from schemas.delivery import AlertedLimit, UsageAlert
from schemas.limits import LimitType, UsageLimitUnit

USAGE_ALERT = Table(
    "usage_alert",
    METADATA,
    Column("day", Date, primary_key=True),
    Column("group_id", String, primary_key=True),
    Column("model_slug", String, primary_key=True),
    Column("type", String, primary_key=True),
    Column("unit", String, primary_key=True),
    Column("threshold", BigInteger, primary_key=True, autoincrement=False),
    Column("share", Integer, primary_key=True, autoincrement=False),
    Column("id", String(36), nullable=False),
    Column("workspace_id", String, nullable=False),
    Column("external_entity_id", String, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("delivery_id", String(36)),
)
"""`day` is the first of the period that `unit` says; without `delivery_id` no delivery tells of it yet."""

_COLUMNS = USAGE_ALERT.c
_UNTOLD = _COLUMNS.delivery_id.is_(None)
_KEY = tuple(USAGE_ALERT.primary_key.columns)

Index("ix_usage_alert_untold", _COLUMNS.created_at, postgresql_where=_UNTOLD, sqlite_where=_UNTOLD)


def keep(connection: Connection, found: Sequence[Alert], now: datetime) -> None:
    """Keep those that are new; those that are there stay as they are."""
    rows = sorted(({**alert._asdict(), "created_at": now, "delivery_id": None} for alert in found), key=_place)
    if rows:  # in one order, so that two workers never wait for each other in a circle
        connection.execute(statements.insert_into(connection.dialect.name, USAGE_ALERT).on_conflict_do_nothing(), rows)


class SqlAlerts:
    """Implements the dispatcher's `Alerts`."""

    def untold(self, connection: Connection, limit: int) -> Sequence[tuple[str, UsageAlert]]:
        """Return at most `limit` (workspace, alert) that no delivery tells yet, locked until the transaction ends."""
        query = select(USAGE_ALERT).where(_UNTOLD).order_by(_COLUMNS.created_at, *_KEY).limit(limit)
        found = connection.execute(query.with_for_update(skip_locked=True))
        return [
            (
                row.workspace_id,
                UsageAlert(
                    id=row.id,
                    group_id=row.group_id,
                    external_entity_id=row.external_entity_id,
                    model_slug=row.model_slug,
                    limit=AlertedLimit(
                        type=LimitType(row.type), unit=UsageLimitUnit(row.unit), threshold=row.threshold
                    ),
                    share=row.share,
                    used=row.used,
                    reset_at=days.reset_at(row.day, UsageLimitUnit(row.unit)),
                ),
            )
            for row in found
        ]

    def told(self, connection: Connection, deliveries: Mapping[str, str]) -> None:
        """Note by the alerts' ids which deliveries tell them."""
        change = update(USAGE_ALERT).where(_COLUMNS.id == bindparam("of_id"), _UNTOLD)
        given = [{"of_id": alert, "new_delivery_id": delivery} for alert, delivery in deliveries.items()]
        connection.execute(change.values(delivery_id=bindparam("new_delivery_id")), given)


def _place(row: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(row[column.name] for column in _KEY)
