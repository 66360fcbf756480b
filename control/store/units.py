"""Makes the unit of work over one connection and its transaction."""

from datetime import datetime

from sqlalchemy import Connection

from control.store.answers import SqlAnswers
from control.store.api_keys import SqlApiKeys
from control.store.audit import OPERATOR, Audit
from control.store.endpoints import SqlEndpoints
from control.store.groups import SqlGroups
from control.store.prices import SqlPriceLists
from control.store.secrets import SqlSecrets
from control.store.workspaces import SqlWebhooks, SqlWorkspaces
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
        workspaces=SqlWorkspaces(connection),
        webhooks=SqlWebhooks(connection),
        prices=SqlPriceLists(connection),
        endpoints=SqlEndpoints(connection),
        secrets=SqlSecrets(connection),
        groups=SqlGroups(connection),
        api_keys=SqlApiKeys(connection),
        answers=SqlAnswers(connection),
        if_match=if_match,
    )
