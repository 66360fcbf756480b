"""Endpoints: creating, changing, deleting one, and looking one up (contract 2.1).

Never touches a table: what it needs of the others' records it asks for through its port.
"""

from dataclasses import replace
from datetime import datetime
from typing import Protocol

from control import addresses
from control.core import audit_view, rules, targets
from control.core.records import Endpoint, Secret
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow.journal import Journal
from runtime import ids
from schemas.api import CreateEndpoint, UpdateEndpoint
from schemas.config import EndpointRecord
from schemas.targets import Target


class Endpoints(Protocol):
    """The stored endpoints and who owns which org prefix."""

    def prefix_owner(self, prefix: str) -> str | None:
        """Return the workspace that owns the prefix (compared case-folded)."""

    def slug_taken(self, slug: str) -> bool:
        """Tell whether any workspace has an endpoint of this slug."""

    def find(self, endpoint_id: str) -> Endpoint | None:
        """Return the endpoint of any workspace."""

    def add(self, endpoint: Endpoint) -> None:
        """Keep a new endpoint and tell the other processes."""

    def replace(self, endpoint: Endpoint) -> None:
        """Keep an endpoint's new slug and target and tell the other processes."""

    def remove(self, endpoint: Endpoint, now: datetime) -> None:
        """Forget an endpoint and tell the other processes."""


class Secrets(Protocol):
    """The stored secrets."""

    def find(self, secret_id: str) -> Secret | None:
        """Return the secret of any workspace."""


class Targets:
    """Judges the targets of one workspace's endpoints."""

    def __init__(self, secrets: Secrets, workspace_id: str, *, allow_private: bool) -> None:
        self._secrets = secrets
        self._workspace_id = workspace_id
        self._allow_private = allow_private

    def checked(self, target: Target) -> Target:
        """Return a target as it is kept. Raise InvalidError."""
        target = targets.checked(target)
        if target.base_url is not None:
            problem = addresses.problem(target.base_url, allow_private=self._allow_private, allow_query=False)
            if problem:
                raise InvalidError(f"{targets.PATH}.base_url: {problem}", param=f"{targets.PATH}.base_url")
        if target.secret_id is not None:
            secret = self._secrets.find(target.secret_id)
            if secret is None or secret.record.workspace_id != self._workspace_id:
                param = f"{targets.PATH}.secret_id"
                raise InvalidError(f"{param}: must name a secret of this workspace", param=param, code="unknown_secret")
        return target


def create(
    endpoints: Endpoints, judge: Targets, journal: Journal, *, workspace_id: str, body: CreateEndpoint, now: datetime
) -> Endpoint:
    """Make an endpoint. Raise InvalidError."""
    _check_prefix(endpoints, workspace_id, body.slug)
    target = judge.checked(body.targets[0])
    _check_free(endpoints, body.slug)
    record = EndpointRecord(id=ids.mint(), workspace_id=workspace_id, slug=body.slug, target=target, created_at=now)
    endpoint = Endpoint(record=record, region=body.region, updated_at=now)
    endpoints.add(endpoint)
    journal.note(workspace_id, "endpoint.create", record.id, after=audit_view.endpoint(endpoint))
    return endpoint


def update(
    endpoints: Endpoints,
    judge: Targets,
    journal: Journal,
    *,
    workspace_id: str,
    endpoint_id: str,
    body: UpdateEndpoint,
    now: datetime,
) -> Endpoint:
    """Change an endpoint's slug, target or both; groups keep naming the slug they name. Raise RefusalError."""
    before = get(endpoints, workspace_id, endpoint_id)
    if body.slug is None and body.targets is None:
        raise InvalidError("slug, targets: at least one of the two is required", code="nothing_to_change")
    slug, target = before.record.slug, before.record.target
    if body.slug is not None and body.slug != slug:
        _check_prefix(endpoints, workspace_id, body.slug)
        _check_free(endpoints, body.slug)
        slug = body.slug
    if body.targets is not None:
        target = judge.checked(body.targets[0])
    record = before.record.model_copy(update={"slug": slug, "target": target})
    endpoint = replace(before, record=record, updated_at=now)
    endpoints.replace(endpoint)
    journal.note(
        workspace_id,
        "endpoint.update",
        endpoint_id,
        before=audit_view.endpoint(before),
        after=audit_view.endpoint(endpoint),
    )
    return endpoint


def delete(
    endpoints: Endpoints, journal: Journal, *, workspace_id: str, endpoint_id: str, now: datetime
) -> EndpointRecord:
    """Delete an endpoint; its slug is free again. Return what it was. Raise NotFoundError or ForbiddenError."""
    endpoint = get(endpoints, workspace_id, endpoint_id)
    endpoints.remove(endpoint, now)
    journal.note(workspace_id, "endpoint.delete", endpoint_id, before=audit_view.endpoint(endpoint))
    return endpoint.record


def get(endpoints: Endpoints, workspace_id: str, endpoint_id: str) -> Endpoint:
    """Return one of the workspace's endpoints. Raise NotFoundError or ForbiddenError."""
    endpoint = endpoints.find(endpoint_id)
    if endpoint is None:
        raise NotFoundError("endpoint_id: no endpoint has this id", param="endpoint_id", code="not_found")
    if endpoint.record.workspace_id != workspace_id:
        raise ForbiddenError("endpoint_id: belongs to another workspace", param="endpoint_id", code="other_workspace")
    return endpoint


def _check_prefix(endpoints: Endpoints, workspace_id: str, slug: str) -> None:
    prefix = rules.org_prefix(slug)
    if endpoints.prefix_owner(prefix) != workspace_id:
        raise InvalidError(
            f"slug: the org prefix '{prefix}' does not belong to this workspace", param="slug", code="org_prefix"
        )


def _check_free(endpoints: Endpoints, slug: str) -> None:
    if endpoints.slug_taken(slug):
        raise InvalidError("slug: an endpoint with this slug exists already", param="slug", code="slug_taken")
