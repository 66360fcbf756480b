"""What the API shows of each thing that may be read and sent back (contract 2.1, 2.2)."""

from datetime import datetime

from control.core.records import Chain, StoredApiKey, StoredEndpoint, StoredGroup
from domain import limit_tree
from schemas.api import ApiKey, Endpoint, Group, GroupHierarchy, GroupMetadata
from schemas.limits import ModelConfig


def endpoint(kept: StoredEndpoint) -> Endpoint:
    """Return an endpoint's body: what was never set is left out, for published clients know none of it."""
    given = {"max_output_tokens": kept.record.max_output_tokens, "upstream_objects": kept.record.upstream_objects}
    shown = {name: value for name, value in given.items() if value is not None}
    return Endpoint(
        id=kept.record.id,
        slug=kept.record.slug,
        region=kept.region,
        targets=(kept.record.target,),
        created_at=kept.record.created_at,
        updated_at=kept.updated_at,
        **shown,
    )


def group(chain: Chain) -> Group:
    """Return the body of the chain's own group."""
    kept = chain[0]
    record = kept.record
    return Group(
        id=record.id,
        metadata=group_metadata(kept),
        models=tuple(_whole(model) for model in record.models),
        effective_models=limit_tree.effective_models([link.record for link in chain]),
        hierarchy=GroupHierarchy(limit_enforcement=record.limit_enforcement, parent_group_id=record.parent_group_id),
        created_at=kept.created_at,
        updated_at=kept.updated_at,
    )


def api_key(key: StoredApiKey, last_used_at: datetime | None = None) -> ApiKey:
    """Return the body of a developer's key: what was never set is left out, for published clients know none of it.

    `last_used_at` is its prefix's; before the key was made it was another's.
    """
    is_own = last_used_at is not None and last_used_at >= key.created_at
    given = {
        "expires_at": key.record.expires_at,
        "disabled": key.disabled,
        "metadata": key.metadata,
        "last_used_at": last_used_at.replace(second=0, microsecond=0) if last_used_at and is_own else None,
    }
    shown = {name: value for name, value in given.items() if value is not None}
    return ApiKey(prefix=key.record.prefix, name=key.name, created_at=key.created_at, **shown)


def group_metadata(kept: StoredGroup) -> GroupMetadata:
    """Return what names a group."""
    return GroupMetadata(name=kept.name, external_entity_id=kept.record.external_entity_id)


def _whole(model: ModelConfig) -> ModelConfig:
    """Set every field, so that a limit list which a body left out is shown as the empty list it is."""
    if len(model.model_fields_set) == len(ModelConfig.model_fields):
        return model
    return ModelConfig(slug=model.slug, rate_limits=model.rate_limits, usage_limits=model.usage_limits)
