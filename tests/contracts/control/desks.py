"""Control's ports over one store, in memory or in a database, with what a contract puts beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, insert, select

from control import auth
from control import unit_of_work as ports
from control.core.records import Shown
from control.flow import corrections
from control.store import audit
from control.store.answers import SqlAnswers
from control.store.api_keys import SqlApiKeys
from control.store.corrections import SqlCorrections
from control.store.endpoints import SqlEndpoints
from control.store.groups import SqlGroups
from control.store.prices import SqlPriceLists
from control.store.secrets import SqlSecrets
from control.store.workspaces import SqlCredentials, SqlWebhooks, SqlWorkspaces
from metering.store import transaction
from schemas.usage import UsageEvent
from tests.integration.control.rows import row
from tests.unit.control import fake_deliveries, fakes
from tests.unit.metering.factories import NOON, HandClock, batch
from webhooks.store import pages, redrive
from webhooks.store.tables import DELIVERY

ACTOR = "tgm_abcdefghijkl"


class Deliveries(Protocol):
    """Deliveries as their flow puts them back."""

    def owner(self, delivery_id: str) -> str | None:
        """Return the workspace of a delivery."""

    def redeliver(self, workspace_id: str, delivery_id: str, now: datetime) -> bool:
        """Put one back; False: it is gone."""

    def redrive(self, workspace_id: str, now: datetime, *, since: datetime | None, until: datetime) -> int:
        """Put back some that ended in the window; return how many."""


class StoredDeliveries:
    """The real functions, at ten a second."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def owner(self, delivery_id: str) -> str | None:
        return pages.owner(self._connection, delivery_id)

    def redeliver(self, workspace_id: str, delivery_id: str, now: datetime) -> bool:
        return redrive.redeliver(self._connection, workspace_id, delivery_id, now)

    def redrive(self, workspace_id: str, now: datetime, *, since: datetime | None, until: datetime) -> int:
        return redrive.redrive(self._connection, workspace_id, now, 10, since=since, until=until)


class Note(NamedTuple):
    """An entry of the audit log, without its time."""

    workspace_id: str
    action: str
    subject: str
    before: Shown | None
    after: Shown | None


@dataclass(frozen=True)
class Desk:
    """Every port of control's flows, over one store."""

    workspaces: ports.Workspaces
    webhooks: ports.Webhooks
    prices: ports.PriceLists
    credentials: auth.Keys
    endpoints: ports.Endpoints
    secrets: ports.Secrets
    groups: ports.Groups
    api_keys: ports.ApiKeys
    answers: ports.Answers
    corrections: corrections.Corrections
    deliveries: Deliveries
    journal: ports.Journal
    notes: Callable[[], Sequence[Note]]
    """What the journal was told, the oldest first."""
    count: Callable[[UsageEvent], None]
    """Puts an event into the ledger."""
    deliver: Callable[[str, str, str, float | None], None]
    """Makes a delivery of a workspace, with its id, its status and after how many seconds it ended."""
    pending: Callable[[], Sequence[str]]
    """Return the ids of the deliveries that are to be attempted, in order."""


def memory() -> Desk:
    """Make a desk of the fakes."""
    keys = fakes.FakeApiKeys()
    spaces = fakes.FakeWorkspaces()
    stored = fakes.FakeEndpoints(spaces)
    noted = fakes.FakeJournal()
    corrected = fakes.FakeCorrections()
    delivered = fake_deliveries.FakeDeliveries()

    def count(event: UsageEvent) -> None:
        corrected.events[event.idempotency_key] = event

    def deliver(workspace_id: str, name: str, status: str, ended_s: float | None) -> None:
        ended_at = row(workspace_id, name, status, made_s=0, ended_s=ended_s)["settled_at"]
        delivered.kept[name] = fake_deliveries.Delivery(workspace_id, status, ended_at)

    return Desk(
        workspaces=spaces,
        webhooks=fakes.FakeWebhooks(),
        prices=fakes.FakePriceLists(),
        credentials=fakes.FakeCredentials(spaces, keys),
        endpoints=stored,
        secrets=fakes.FakeSecrets(stored),
        groups=fakes.FakeGroups(keys),
        api_keys=keys,
        answers=fakes.FakeAnswers(),
        corrections=corrected,
        deliveries=delivered,
        journal=noted,
        notes=lambda: [Note(*note) for note in noted.notes],
        count=count,
        deliver=deliver,
        pending=lambda: delivered.pending,
    )


def database(connection: Connection, now: datetime) -> Desk:
    """Make a desk of the real stores, all in the connection's one transaction."""

    def count(event: UsageEvent) -> None:
        topic = f"spool of {event.idempotency_key}"
        transaction.apply(connection, batch([event], topic=topic), HandClock(NOON))

    def deliver(workspace_id: str, name: str, status: str, ended_s: float | None) -> None:
        made = row(workspace_id, name, status, made_s=0, ended_s=ended_s)
        connection.execute(insert(DELIVERY).values(made))

    def pending() -> Sequence[str]:
        found = select(DELIVERY.c.id).where(DELIVERY.c.status == "pending").order_by(DELIVERY.c.id)
        return list(connection.execute(found).scalars())

    def notes() -> Sequence[Note]:
        return [
            Note(entry.workspace_id, entry.action, entry.subject, entry.before, entry.after)
            for entry in audit.newest(connection, None, 100)
        ]

    return Desk(
        workspaces=SqlWorkspaces(connection),
        webhooks=SqlWebhooks(connection),
        prices=SqlPriceLists(connection),
        credentials=SqlCredentials(connection),
        endpoints=SqlEndpoints(connection),
        secrets=SqlSecrets(connection),
        groups=SqlGroups(connection),
        api_keys=SqlApiKeys(connection),
        answers=SqlAnswers(connection),
        corrections=SqlCorrections(connection),
        deliveries=StoredDeliveries(connection),
        journal=audit.Audit(connection, ACTOR, now),
        notes=notes,
        count=count,
        deliver=deliver,
        pending=pending,
    )
