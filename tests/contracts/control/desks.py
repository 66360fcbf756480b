"""Control's ports over one store, in memory or in a database, with what a contract puts beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, insert, select

from control import auth
from control.core.records import Shown
from control.flow import api_keys, corrections, deliveries, endpoints, groups, journal, secrets, webhooks, workspaces
from control.store import audit
from control.store.api_keys import ApiKeys
from control.store.corrections import Corrections
from control.store.deliveries import Deliveries
from control.store.endpoints import Endpoints
from control.store.groups import Groups
from control.store.secrets import Secrets
from control.store.workspaces import Keys, Webhooks, Workspaces
from metering.store import transaction
from schemas.usage import UsageEvent
from tests.integration.control.rows import row
from tests.unit.control import fakes
from tests.unit.metering.factories import NOON, HandClock, batch
from webhooks.store.tables import DELIVERY

ACTOR = "tgm_abcdefghijkl"


class EndpointStore(endpoints.Endpoints, groups.Slugs, Protocol):
    """Endpoints as their own flow and as the groups' flow knows them."""


class GroupStore(groups.Tree, groups.Changes, Protocol):
    """Groups as they are read and changed."""


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

    workspaces: workspaces.Workspaces
    webhooks: webhooks.Webhooks
    credentials: auth.Keys
    endpoints: EndpointStore
    secrets: secrets.Secrets
    groups: GroupStore
    api_keys: api_keys.ApiKeys
    corrections: corrections.Corrections
    deliveries: deliveries.Deliveries
    journal: journal.Journal
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
    delivered = fakes.FakeDeliveries()

    def count(event: UsageEvent) -> None:
        corrected.events[event.idempotency_key] = event

    def deliver(workspace_id: str, name: str, status: str, ended_s: float | None) -> None:
        ended_at = row(workspace_id, name, status, made_s=0, ended_s=ended_s)["settled_at"]
        delivered.kept[name] = fakes.Delivery(workspace_id, status, ended_at)

    return Desk(
        workspaces=spaces,
        webhooks=fakes.FakeWebhooks(),
        credentials=fakes.FakeCredentials(spaces, keys),
        endpoints=stored,
        secrets=fakes.FakeSecrets(stored),
        groups=fakes.FakeTree(keys),
        api_keys=keys,
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
        workspaces=Workspaces(connection),
        webhooks=Webhooks(connection),
        credentials=Keys(connection),
        endpoints=Endpoints(connection),
        secrets=Secrets(connection),
        groups=Groups(connection),
        api_keys=ApiKeys(connection),
        corrections=Corrections(connection),
        deliveries=Deliveries(connection, per_s=10),
        journal=audit.Audit(connection, ACTOR, now),
        notes=notes,
        count=count,
        deliver=deliver,
        pending=pending,
    )
