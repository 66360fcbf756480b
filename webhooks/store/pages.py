"""Reads deliveries for people: in pages, newest first, each with its last attempts, and one alone with its bytes
(contract 2.5).

Bodies and answers are not read for a page: they may be 64 KiB each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select, tuple_

from runtime.database import statements
from webhooks.core.deliveries import Attempt, Status
from webhooks.store.tables import ATTEMPT, DELIVERY, DELIVERY_EVENT

SHOWN_ATTEMPTS = 50
"""The last so many of a delivery's attempts are given: a long retry policy and probes make thousands."""

_COLUMNS = DELIVERY.c
_TRIED = (ATTEMPT.c.at, ATTEMPT.c.status_code, ATTEMPT.c.error, ATTEMPT.c.duration_ms)
_SHOWN = [column for column in _COLUMNS if column is not _COLUMNS.body]


class DeliveryPageStart(NamedTuple):
    """A point in the order: what follows has an earlier moment, or the same and a smaller id."""

    moment: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A delivery as it stands."""

    id: str
    workspace_id: str
    status: Status
    reason: str | None
    created_at: datetime
    settled_at: datetime | None
    """When it was delivered, given up or put aside; None while it is pending."""
    event_count: int
    next_attempt_at: datetime | None
    attempts: tuple[Attempt, ...]
    """The last of them, in their order."""


class ShownDelivery(NamedTuple):
    """A delivery, its attempts with what was answered, and the bytes that each of them sent."""

    listed: Listed
    body: bytes


class Undelivered(NamedTuple):
    """What of a workspace is not delivered yet, and what was given up."""

    pending: int
    dead: int
    oldest: datetime | None
    """When the oldest pending one was made."""


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """Which deliveries of one workspace are read. `since` is inclusive, `until` exclusive."""

    workspace_id: str
    status: Status | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def moment(self) -> ColumnElement[datetime]:
        """What order and bounds go by: for a status that ends a delivery when it ended, else when it was made.

        So the first dead letters of a list are those that were given up last, and its bounds are a redrive's.
        """
        ended = self.status not in {None, Status.PENDING}
        return _COLUMNS.settled_at if ended else _COLUMNS.created_at


def page(connection: Connection, window: DeliveryQuery, after: DeliveryPageStart | None, limit: int) -> list[Listed]:
    """Return at most `limit` deliveries behind `after`, newest first."""
    return _listed(connection, connection.execute(query(window, after, limit)).all())


def query(window: DeliveryQuery, after: DeliveryPageStart | None, limit: int) -> Select[Any]:
    """Return what `page` asks, to be explained."""
    moment = window.moment
    conditions: list[ColumnElement[bool]] = [_COLUMNS.workspace_id == window.workspace_id]
    conditions += [] if window.status is None else [_COLUMNS.status == window.status.value]
    conditions += [] if window.since is None else [moment >= window.since]
    conditions += [] if window.until is None else [moment < window.until]
    # The first of the two is for the index: not every engine sees the bound in a comparison of rows.
    conditions += [] if after is None else [moment <= after.moment, tuple_(moment, _COLUMNS.id) < tuple_(*after)]
    return select(*_SHOWN).where(*conditions).order_by(moment.desc(), _COLUMNS.id.desc()).limit(limit)


def place_of(listed: Listed, window: DeliveryQuery) -> DeliveryPageStart:
    """Return the place that the next page of a window begins behind."""
    moment = listed.created_at if window.moment is _COLUMNS.created_at else listed.settled_at
    return DeliveryPageStart(moment or listed.created_at, listed.id)


def find(connection: Connection, delivery_id: str) -> Listed | None:
    """Return one delivery, of whichever workspace."""
    rows = connection.execute(select(*_SHOWN).where(_COLUMNS.id == delivery_id)).all()
    return next(iter(_listed(connection, rows)), None)


def undelivered(connection: Connection, workspace_id: str) -> Undelivered:
    """Return how many of a workspace's deliveries are pending and how many dead."""
    return _undelivered(connection, _COLUMNS.workspace_id == workspace_id).get(workspace_id, Undelivered(0, 0, None))


def undelivered_of_all(connection: Connection) -> dict[str, Undelivered]:
    """Return the same of every workspace that has any."""
    return _undelivered(connection)


def _undelivered(connection: Connection, *of: ColumnElement[bool]) -> dict[str, Undelivered]:
    sums = (func.count(), func.min(_COLUMNS.created_at))
    found: dict[str, Undelivered] = {}
    for status in (Status.PENDING, Status.DEAD):
        query = select(_COLUMNS.workspace_id, *sums).where(_COLUMNS.status == status.value, *of)
        for id_, count, first in connection.execute(query.group_by(_COLUMNS.workspace_id)):
            if status is Status.PENDING:
                found[id_] = Undelivered(count, 0, first)
            else:
                found[id_] = found.get(id_, Undelivered(0, 0, None))._replace(dead=count)
    return found


def of_event(connection: Connection, workspace_id: str, idempotency_key: str, day: date) -> Listed | None:
    """Return the delivery of an event; None while there is none, or when it is no longer kept."""
    columns = DELIVERY_EVENT.c
    own = (columns.day == day, columns.workspace_id == workspace_id, columns.idempotency_key == idempotency_key)
    delivery_id = connection.execute(select(columns.delivery_id).where(*own)).scalar_one_or_none()
    return None if delivery_id is None else find(connection, delivery_id)


def whole(connection: Connection, delivery_id: str) -> ShownDelivery | None:
    """Return one delivery with what was sent and answered, of whichever workspace."""
    rows = connection.execute(select(DELIVERY).where(_COLUMNS.id == delivery_id)).all()
    if not rows:
        return None
    (listed,) = _listed(connection, rows, [*_TRIED, ATTEMPT.c.answer])
    return ShownDelivery(listed, rows[0].body)


def owner(connection: Connection, delivery_id: str) -> str | None:
    """Return the workspace of a delivery."""
    named = select(_COLUMNS.workspace_id).where(_COLUMNS.id == delivery_id)
    return connection.execute(named).scalar_one_or_none()


def _listed(
    connection: Connection, rows: Sequence[Row[Any]], tried: Sequence[ColumnElement[Any]] = _TRIED
) -> list[Listed]:
    attempts = _attempts(connection, [row.id for row in rows], tried)
    return [
        Listed(
            id=row.id,
            workspace_id=row.workspace_id,
            status=Status(row.status),
            reason=row.reason,
            created_at=row.created_at,
            settled_at=row.settled_at,
            event_count=row.event_count,
            next_attempt_at=row.next_attempt_at,
            attempts=tuple(attempts.get(row.id, ())),
        )
        for row in rows
    ]


def _attempts(
    connection: Connection, delivery_ids: Sequence[str], columns: Sequence[ColumnElement[Any]]
) -> dict[str, list[Attempt]]:
    column = ATTEMPT.c
    recent = select(column.delivery_id, *columns).join(DELIVERY, column.delivery_id == _COLUMNS.id)
    recent = recent.where(column.number > _COLUMNS.attempt_count - SHOWN_ATTEMPTS)
    found: dict[str, list[Attempt]] = {}
    for some in statements.chunks(delivery_ids):
        those = recent.where(column.delivery_id.in_(some)).order_by(column.delivery_id, column.number)
        for row in connection.execute(those):
            found.setdefault(row[0], []).append(Attempt(*row[1:]))
    return found
