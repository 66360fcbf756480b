"""The whole live configuration at one version, for a process that starts (counting 8).

Never returns what is deleted or revoked.
"""

from collections.abc import Callable, Iterator

from sqlalchemy import Connection

from control.store.api_keys import SqlApiKeys
from control.store.endpoints import SqlEndpoints
from control.store.groups import SqlGroups
from control.store.prices import SqlPriceLists
from control.store.secrets import SqlSecrets
from control.store.workspaces import SqlWebhooks, SqlWorkspaces
from runtime.config import log as config_log
from schemas.config import ConfigChange, ConfigKind, ConfigRecord


def snapshot(connection: Connection) -> tuple[int, Iterator[ConfigChange]]:
    """Return the current version and every live record as a change of that version, parents before children.

    One consistent view: a follower reads the log from the version on. The records are read while they are taken, so
    take them within the transaction: there may be a million, and they are never all held.
    """
    version = config_log.current_version(connection)
    return version, (
        ConfigChange.model_construct(version=version, kind=kind, id=id_, record=record)
        for kind, id_, record in _records(connection)
    )


def load(connection: Connection, *subscribers: Callable[[ConfigChange], None]) -> int:
    """Hand the whole snapshot to each subscriber; return its version."""
    version, changes = snapshot(connection)
    for change in changes:
        for take in subscribers:
            take(change)
    return version


def _records(connection: Connection) -> Iterator[tuple[ConfigKind, str, ConfigRecord]]:
    for workspace in SqlWorkspaces(connection).every():
        yield ConfigKind.WORKSPACE, workspace.id, workspace
    for secret in SqlSecrets(connection).every():
        yield ConfigKind.SECRET, secret.record.id, secret.record
    for endpoint in SqlEndpoints(connection).every():
        yield ConfigKind.ENDPOINT, endpoint.record.id, endpoint.record
    for id_, price in SqlPriceLists(connection).records():
        yield ConfigKind.PRICE, id_, price
    for group in SqlGroups(connection).records():
        yield ConfigKind.GROUP, group.id, group
    for key in SqlApiKeys(connection).records():
        yield ConfigKind.KEY, key.prefix, key
    for webhook in SqlWebhooks(connection).every():
        yield ConfigKind.WEBHOOK, webhook.workspace_id, webhook
