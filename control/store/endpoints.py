"""Queries of endpoints and of who owns a slug."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from control.core.records import StoredEndpoint
from control.store import workspaces
from control.store.tables import ENDPOINTS
from runtime.config import log as config_log
from runtime.database import statements
from schemas.api import Region
from schemas.config import ConfigKind, EndpointRecord


class SqlEndpoints:
    """The endpoints of all workspaces, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def prefix_owner(self, prefix: str) -> str | None:
        """Return the workspace that owns the prefix (compared case-folded)."""
        return workspaces.prefix_owner(self._connection, prefix)

    def slug_taken(self, slug: str) -> bool:
        """Tell whether any workspace has an endpoint of this slug."""
        query = select(ENDPOINTS.c.id).where(ENDPOINTS.c.slug == slug)
        return self._connection.execute(query).first() is not None

    def find(self, endpoint_id: str) -> StoredEndpoint | None:
        """Return the endpoint of any workspace."""
        row = self._connection.execute(select(ENDPOINTS).where(ENDPOINTS.c.id == endpoint_id)).first()
        return None if row is None else _read(row)

    def missing(self, workspace_id: str, slugs: Iterable[str]) -> Sequence[str]:
        """Return those slugs that name no endpoint of the workspace, in their order."""
        named = list(slugs)
        own = ENDPOINTS.c.workspace_id == workspace_id
        queries = [select(ENDPOINTS.c.slug).where(ENDPOINTS.c.slug.in_(some), own) for some in statements.chunks(named)]
        there = {slug for query in queries for slug in self._connection.execute(query).scalars()}
        return [slug for slug in named if slug not in there]

    def add(self, endpoint: StoredEndpoint) -> None:
        """Keep a new endpoint; the change goes to the log in the same transaction."""
        record = endpoint.record
        fixed = {"id": record.id, "workspace_id": record.workspace_id, "created_at": record.created_at}
        self._connection.execute(insert(ENDPOINTS).values(fixed | _values(endpoint)))
        config_log.append(self._connection, endpoint.updated_at, ConfigKind.ENDPOINT, record.id, record)

    def replace(self, endpoint: StoredEndpoint) -> None:
        """Keep an endpoint's new slug and target; the change goes to the log in the same transaction."""
        record = endpoint.record
        self._connection.execute(update(ENDPOINTS).where(ENDPOINTS.c.id == record.id).values(_values(endpoint)))
        config_log.append(self._connection, endpoint.updated_at, ConfigKind.ENDPOINT, record.id, record)

    def remove(self, endpoint: StoredEndpoint, now: datetime) -> None:
        """Forget an endpoint; the change goes to the log in the same transaction."""
        self._connection.execute(delete(ENDPOINTS).where(ENDPOINTS.c.id == endpoint.record.id))
        config_log.append(self._connection, now, ConfigKind.ENDPOINT, endpoint.record.id, None)

    def page(self, workspace_id: str, after: str, limit: int, slug: str | None = None) -> Sequence[StoredEndpoint]:
        """Return at most `limit` endpoints of the workspace with an id above `after`, by id; of one slug or of all."""
        query = select(ENDPOINTS).where(ENDPOINTS.c.workspace_id == workspace_id, ENDPOINTS.c.id > after)
        if slug is not None:
            query = query.where(ENDPOINTS.c.slug == slug)
        return self._all(query.order_by(ENDPOINTS.c.id).limit(limit))

    def every(self) -> Iterator[StoredEndpoint]:
        """Return all of them, by id, one after the other."""
        query = select(ENDPOINTS).order_by(ENDPOINTS.c.id)
        return (_read(row) for row in self._connection.execute(query, execution_options=statements.STREAMED))

    def _all(self, query: Select[Any]) -> Sequence[StoredEndpoint]:
        return [_read(row) for row in self._connection.execute(query)]


def _values(endpoint: StoredEndpoint) -> dict[str, Any]:
    target = endpoint.record.target
    return {
        "slug": endpoint.record.slug,
        "region": endpoint.region.value,
        "target": target.model_dump(mode="json", exclude_unset=True),
        "secret_id": target.secret_id,
        "max_output_tokens": endpoint.record.max_output_tokens,
        "upstream_objects": endpoint.record.upstream_objects,
        "updated_at": endpoint.updated_at,
    }


def _read(row: Row[Any]) -> StoredEndpoint:
    record = EndpointRecord(
        id=row.id,
        workspace_id=row.workspace_id,
        slug=row.slug,
        target=row.target,
        created_at=row.created_at,
        max_output_tokens=row.max_output_tokens,
        upstream_objects=row.upstream_objects,
    )
    return StoredEndpoint(record=record, region=Region(row.region), updated_at=row.updated_at)
