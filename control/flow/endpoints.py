"""Endpoints: creating one, and looking one up (spec 2.1).

Never touches a table: what it needs of the others' records it asks for through its port.
"""

from datetime import datetime
from typing import Protocol

from control import addresses
from control.core import rules
from control.core.records import Endpoint
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from runtime import ids
from schemas.api import CreateEndpoint
from schemas.config import EndpointRecord
from schemas.targets import Target


class Endpoints(Protocol):
    """The stored endpoints and who owns which org prefix."""

    def prefix_owner(self, prefix: str) -> str | None:
        """Give the workspace that owns the prefix (compared case-folded)."""

    def slug_taken(self, slug: str) -> bool:
        """Tell whether any workspace has an endpoint of this slug."""

    def find(self, endpoint_id: str) -> Endpoint | None:
        """Give the endpoint of any workspace."""

    def add(self, endpoint: Endpoint) -> None:
        """Keep a new endpoint and tell the other processes."""


def create(
    endpoints: Endpoints, workspace_id: str, body: CreateEndpoint, now: datetime, *, allow_private: bool
) -> Endpoint:
    """Make an endpoint. Raises InvalidError."""
    prefix = rules.org_prefix(body.slug)
    if endpoints.prefix_owner(prefix) != workspace_id:
        raise InvalidError(
            f"slug: the org prefix '{prefix}' does not belong to this workspace", param="slug", code="org_prefix"
        )
    target = _target(body.targets[0], allow_private=allow_private)
    if endpoints.slug_taken(body.slug):
        raise InvalidError("slug: an endpoint with this slug exists already", param="slug", code="slug_taken")
    record = EndpointRecord(id=ids.mint(), workspace_id=workspace_id, slug=body.slug, target=target, created_at=now)
    endpoint = Endpoint(record=record, region=body.region, updated_at=now)
    endpoints.add(endpoint)
    return endpoint


def get(endpoints: Endpoints, workspace_id: str, endpoint_id: str) -> Endpoint:
    """Give one of the workspace's endpoints. Raises NotFoundError or ForbiddenError."""
    endpoint = endpoints.find(endpoint_id)
    if endpoint is None:
        raise NotFoundError("endpoint_id: no endpoint has this id", param="endpoint_id", code="not_found")
    if endpoint.record.workspace_id != workspace_id:
        raise ForbiddenError("endpoint_id: belongs to another workspace", param="endpoint_id", code="other_workspace")
    return endpoint


def _target(target: Target, *, allow_private: bool) -> Target:
    """Give an OPENAI_COMPATIBLE target as it is kept: checked, only the fields that were set, no slash at the end."""
    path = "targets[0]"
    base_url = (target.base_url or "").rstrip("/")
    for name, value in {"base_url": base_url, "target_model": target.target_model}.items():
        if not value:
            raise InvalidError(f"{path}.{name}: required for {target.provider}", param=f"{path}.{name}")
    problem = addresses.problem(target.base_url or "", allow_private=allow_private, allow_query=False)
    if problem:
        raise InvalidError(f"{path}.base_url: {problem}", param=f"{path}.base_url")
    if target.secret_id is not None:
        # None exist yet; an unknown one and one of another workspace answer the same (spec section 2).
        raise InvalidError(f"{path}.secret_id: must name a secret of this workspace", param=f"{path}.secret_id")
    return Target.model_validate(target.model_dump(exclude_none=True) | {"base_url": base_url})
