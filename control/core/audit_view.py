"""What the audit log keeps of each thing.

Never gives a secret, sealed or open, nor the digest of a key.
"""

from control.core.records import ManagementKey, Shown, StoredApiKey, StoredEndpoint, StoredGroup, StoredSecret
from schemas.base import rfc3339
from schemas.config import WebhookRecord, WorkspaceRecord


def difference(before: Shown, after: Shown) -> tuple[Shown, Shown]:
    """Return of both the fields that are not alike; of a group's models those that are not.

    A change of one limit in a thousand is then a line, and not two copies of the whole.
    """
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    shown = [{name: each[name] for name in names if name in each} for each in (before, after)]
    if "models" in names:
        for own, other in zip(shown, (before, after)[::-1], strict=True):
            others = {model["slug"]: model for model in other.get("models", ())}
            own["models"] = [model for model in own.get("models", ()) if model != others.get(model["slug"])]
    return shown[0], shown[1]


def workspace(record: WorkspaceRecord) -> Shown:
    """Show a workspace."""
    return {"name": record.name, "state": record.state.value, "operator_credential": record.operator_credential}


def management_key(key: ManagementKey) -> Shown:
    """Show a management key."""
    return {"scope": key.scope.value}


def webhook(record: WebhookRecord) -> Shown:
    """Show where webhooks go."""
    return {"url": record.url, "enabled": record.enabled, "usage_alerts": list(record.usage_alerts)}


def secret(kept: StoredSecret) -> Shown:
    """Show a secret, without its value."""
    return {"name": kept.name}


def endpoint(kept: StoredEndpoint) -> Shown:
    """Show an endpoint."""
    target = kept.record.target.model_dump(mode="json", exclude_unset=True)
    return {
        "slug": kept.record.slug,
        "region": kept.region.value,
        "targets": [target],
        "max_output_tokens": kept.record.max_output_tokens,
        "upstream_objects": kept.record.upstream_objects,
    }


def group(kept: StoredGroup) -> Shown:
    """Show a group."""
    record = kept.record
    return {
        "name": kept.name,
        "external_entity_id": record.external_entity_id,
        "parent_group_id": record.parent_group_id,
        "limit_enforcement": record.limit_enforcement.value,
        "models": [model.model_dump(mode="json") for model in record.models],
    }


def api_key(key: StoredApiKey) -> Shown:
    """Show a developer's key."""
    expires_at = key.record.expires_at
    given = {
        "expires_at": None if expires_at is None else rfc3339(expires_at),
        "disabled": key.disabled,
        "metadata": key.metadata,
    }
    own = {"group_id": key.record.group_id, "name": key.name}
    return own | {name: value for name, value in given.items() if value is not None}
