"""How each receiver does, as every dispatcher sees it: all SQL on `webhook_receiver` (contract 5).

Locks its rows after those of deliveries, never before waiting for one.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Connection, Row, select, update

from runtime.database import statements
from webhooks.core import health
from webhooks.core.health import Health, Rule
from webhooks.core.retry import Decision, GiveUp, RetryAt
from webhooks.store.tables import WEBHOOK_RECEIVER

_COLUMNS = WEBHOOK_RECEIVER.c


_MARKED = select(_COLUMNS.workspace_id, _COLUMNS.probe_at, _COLUMNS.redriven_at).where(
    _COLUMNS.probe_at.is_not(None) | _COLUMNS.redriven_at.is_not(None)
)


def held_and_paced(connection: Connection) -> tuple[dict[str, datetime], dict[str, datetime]]:
    """Return the receivers that are held, each with the moment its next probe is due, and the workspaces that have had
    redriven deliveries, each with the moment from which on more of them may be claimed."""
    rows = connection.execute(_MARKED).all()
    return (
        {row.workspace_id: row.probe_at for row in rows if row.probe_at is not None},
        {row.workspace_id: row.redriven_at for row in rows if row.redriven_at is not None},
    )


def note(connection: Connection, decisions: Iterable[tuple[str, Decision]], now: datetime, rule: Rule) -> None:
    """Take in what became of deliveries, each with its workspace, in their order."""
    by_workspace: dict[str, list[Decision]] = {}
    for workspace_id, decision in decisions:
        by_workspace.setdefault(workspace_id, []).append(decision)
    losing = sorted(name for name, made in by_workspace.items() if any(map(_counts, made)))
    if losing:
        fresh = statements.insert_into(connection.dialect.name, WEBHOOK_RECEIVER).on_conflict_do_nothing()
        connection.execute(fresh, [{"workspace_id": name, "dead_in_row": 0} for name in losing])
    # The others are looked at only where something is known against them: nearly always nothing is.
    marked = _COLUMNS.workspace_id.in_(losing) | (_COLUMNS.dead_in_row > 0) | _COLUMNS.owes_redrive
    query = select(WEBHOOK_RECEIVER).where(_COLUMNS.workspace_id.in_(by_workspace), marked)
    for row in connection.execute(query.order_by(_COLUMNS.workspace_id).with_for_update()).all():
        known = before = _health(row)
        for decision in by_workspace[row.workspace_id]:
            known = health.after(known, decision, now, rule)
        if known != before:
            _put(connection, row.workspace_id, known)


def take_probe(connection: Connection, workspace_id: str, now: datetime, rule: Rule) -> int | None:
    """Take the probe that is due, and plan the next; return how many of the oldest deliveries it passes over.

    None where it is not the caller's: only one dispatcher gets it.
    """
    due = (_COLUMNS.workspace_id == workspace_id) & (_COLUMNS.probe_at <= now)
    taken = update(WEBHOOK_RECEIVER).where(due).values(probe_at=rule.next_probe(now))
    refused_in_row: int | None = connection.execute(taken.returning(_COLUMNS.refused_in_row)).scalar_one_or_none()
    return refused_in_row


def take_redriven(connection: Connection, workspace_id: str, now: datetime, rule: Rule, count: int) -> bool:
    """Take the step that is due of a workspace's redriven deliveries, for `count`, and plan the next.

    Return whether it is the caller's: only one dispatcher gets it.
    """
    row = {"workspace_id": workspace_id, "dead_in_row": 0, "redriven_at": rule.next_redriven(now, count)}
    step = statements.insert_into(connection.dialect.name, WEBHOOK_RECEIVER).values(row)
    due = _COLUMNS.redriven_at.is_(None) | (_COLUMNS.redriven_at <= now)
    taken = step.on_conflict_do_update(
        index_elements=[_COLUMNS.workspace_id], set_={"redriven_at": step.excluded.redriven_at}, where=due
    )
    return connection.execute(taken.returning(_COLUMNS.workspace_id)).first() is not None


def probe_soon(connection: Connection, workspace_id: str, now: datetime) -> None:
    """Let the next probe of a held receiver come now: somebody says that it is back."""
    later = (_COLUMNS.workspace_id == workspace_id) & (_COLUMNS.probe_at > now)
    connection.execute(update(WEBHOOK_RECEIVER).where(later).values(probe_at=now))


def bring_forward(connection: Connection, now: datetime, longest: timedelta) -> None:
    """Bring to now each probe, and each step of redriven deliveries, that lies more than `longest` ahead."""
    for column in (_COLUMNS.probe_at, _COLUMNS.redriven_at):
        late = update(WEBHOOK_RECEIVER).where(column > now + longest)
        connection.execute(late.values({column: now}))


def next_redrive(connection: Connection, now: datetime) -> str | None:
    """Return a receiver that is back and whose dead letters are to be redriven, locked; None where there is none."""
    ready = (_COLUMNS.redrive_at <= now) & _COLUMNS.probe_at.is_(None)
    query = select(_COLUMNS.workspace_id).where(ready).limit(1).with_for_update(skip_locked=True)
    workspace_id: str | None = connection.execute(query).scalar_one_or_none()
    return workspace_id


def redrive_next(connection: Connection, workspace_id: str, at: datetime | None) -> None:
    """Note from when on a receiver's dead letters are to be redriven; None: that there are none."""
    of_it = _COLUMNS.workspace_id == workspace_id
    connection.execute(update(WEBHOOK_RECEIVER).where(of_it).values(redrive_at=at))


def _counts(decision: Decision) -> bool:
    return (isinstance(decision, GiveUp) and not decision.refused) or (
        isinstance(decision, RetryAt) and decision.counts
    )


def _health(row: Row[tuple[object, ...]]) -> Health:
    return Health(row.dead_in_row, row.probe_at, row.owes_redrive, row.redrive_at, row.refused_in_row)


def _put(connection: Connection, workspace_id: str, known: Health) -> None:
    values = {
        "dead_in_row": known.dead_in_row,
        "probe_at": known.probe_at,
        "owes_redrive": known.owes_redrive,
        "redrive_at": known.redrive_at,
        "refused_in_row": known.refused_in_row,
    }
    connection.execute(update(WEBHOOK_RECEIVER).where(_COLUMNS.workspace_id == workspace_id).values(values))
