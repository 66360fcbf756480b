"""Endpoints: creating, changing, deleting one, and looking one up (contract 2.1)."""

from dataclasses import replace

from control import addresses
from control.core import audit_view, bodies, fixed, preconditions, rules, targets
from control.core.records import StoredEndpoint
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.unit_of_work import UnitOfWork
from runtime import ids
from schemas.api import CreateEndpoint, UpdateEndpoint
from schemas.config import EndpointRecord
from schemas.targets import Target

_OWN = ("max_output_tokens", "upstream_objects")
"""What a PATCH may take away again with null."""


def create(unit: UnitOfWork, body: CreateEndpoint, *, allow_private: bool) -> StoredEndpoint:
    """Make an endpoint. Raise InvalidError. `allow_private`: whether its upstream may be at a private address."""
    _check_prefix(unit, body.slug)
    target = _checked(unit, body.targets[0], allow_private=allow_private)
    _check_free(unit, body.slug)
    record = EndpointRecord(
        id=ids.mint(),
        workspace_id=unit.workspace_id,
        slug=body.slug,
        target=target,
        created_at=unit.now,
        max_output_tokens=body.max_output_tokens,
        upstream_objects=body.upstream_objects,
    )
    endpoint = StoredEndpoint(record=record, region=body.region, updated_at=unit.now)
    unit.endpoints.add(endpoint)
    unit.journal.note(unit.workspace_id, "endpoint.create", record.id, after=audit_view.endpoint(endpoint))
    return endpoint


def update(unit: UnitOfWork, endpoint_id: str, body: UpdateEndpoint, *, allow_private: bool) -> StoredEndpoint:
    """Change an endpoint; groups keep naming the slug they name. Raise RefusalError."""
    before = get(unit, endpoint_id)
    shown = bodies.endpoint(before)
    preconditions.check(unit.if_match, shown)
    fixed.check(body, shown, free={"slug", "targets", "updated_at", *_OWN})
    own = {name: getattr(body, name) for name in _OWN if name in body.model_fields_set}
    if body.slug is None and body.targets is None and not own:
        names = ", ".join(("slug", "targets", *_OWN))
        raise InvalidError(f"{names}: at least one of them is required", code="nothing_to_change")
    slug, target = before.record.slug, before.record.target
    if body.slug is not None and body.slug != slug:
        _check_prefix(unit, body.slug)
        _check_free(unit, body.slug)
        slug = body.slug
    if body.targets is not None:
        target = _checked(unit, body.targets[0], allow_private=allow_private)
    record = before.record.model_copy(update={"slug": slug, "target": target} | own)
    endpoint = replace(before, record=record, updated_at=unit.now)
    unit.endpoints.replace(endpoint)
    unit.journal.note(
        unit.workspace_id,
        "endpoint.update",
        endpoint_id,
        before=audit_view.endpoint(before),
        after=audit_view.endpoint(endpoint),
    )
    return endpoint


def delete(unit: UnitOfWork, endpoint_id: str) -> EndpointRecord:
    """Delete an endpoint; its slug is free again. Return what it was. Raise NotFoundError or ForbiddenError."""
    endpoint = get(unit, endpoint_id)
    preconditions.check(unit.if_match, bodies.endpoint(endpoint))
    unit.endpoints.remove(endpoint, unit.now)
    unit.journal.note(unit.workspace_id, "endpoint.delete", endpoint_id, before=audit_view.endpoint(endpoint))
    return endpoint.record


def get(unit: UnitOfWork, endpoint_id: str) -> StoredEndpoint:
    """Return one of the workspace's endpoints. Raise NotFoundError or ForbiddenError."""
    endpoint = unit.endpoints.find(endpoint_id)
    if endpoint is None:
        raise NotFoundError("endpoint_id: no endpoint has this id", param="endpoint_id", code="not_found")
    if endpoint.record.workspace_id != unit.workspace_id:
        raise ForbiddenError("endpoint_id: belongs to another workspace", param="endpoint_id", code="other_workspace")
    return endpoint


def _check_prefix(unit: UnitOfWork, slug: str) -> None:
    prefix = rules.org_prefix(slug)
    if unit.endpoints.prefix_owner(prefix) != unit.workspace_id:
        raise InvalidError(
            f"slug: the org prefix '{prefix}' does not belong to this workspace", param="slug", code="org_prefix"
        )


def _check_free(unit: UnitOfWork, slug: str) -> None:
    if unit.endpoints.slug_taken(slug):
        raise InvalidError("slug: an endpoint with this slug exists already", param="slug", code="slug_taken")


def _checked(unit: UnitOfWork, target: Target, *, allow_private: bool) -> Target:
    """Return a target as it is kept. Raise InvalidError."""
    target = targets.checked(target)
    if target.base_url is not None:
        problem = addresses.problem(target.base_url, allow_private=allow_private, allow_query=False)
        if problem:
            raise InvalidError(f"{targets.PATH}.base_url: {problem}", param=f"{targets.PATH}.base_url")
    if target.secret_id is not None:
        secret = unit.secrets.find(target.secret_id)
        if secret is None or secret.record.workspace_id != unit.workspace_id:
            param = f"{targets.PATH}.secret_id"
            raise InvalidError(f"{param}: must name a secret of this workspace", param=param, code="unknown_secret")
    return target
