"""Makes the unit of work over one connection and its transaction."""

from datetime import datetime

from sqlalchemy import Connection

from control.store.answers import Answers
from control.store.api_keys import ApiKeys
from control.store.audit import OPERATOR, Audit
from control.store.endpoints import Endpoints
from control.store.groups import Groups
from control.store.prices import PriceLists
from control.store.secrets import Secrets
from control.store.workspaces import Webhooks, Workspaces
from control.unit_of_work import UnitOfWork


def over(
    connection: Connection,
    now: datetime,
    *,
    workspace_id: str = "",
    actor: str = OPERATOR,
    if_match: str | None = None,
) -> UnitOfWork:
    """Return the unit of a lab's call, where `actor` is its management key's prefix, or of the operator's."""
    return UnitOfWork(
        workspace_id=workspace_id,
        now=now,
        journal=Audit(connection, actor, now),
        workspaces=Workspaces(connection),
        webhooks=Webhooks(connection),
        prices=PriceLists(connection),
        endpoints=Endpoints(connection),
        secrets=Secrets(connection),
        groups=Groups(connection),
        api_keys=ApiKeys(connection),
        answers=Answers(connection),
        if_match=if_match,
    )
