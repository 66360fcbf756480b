"""Bodies of the management API (contract 2), as the published document names their fields.

Checks what can be checked on the body alone; what needs other records is checked in `control`.
"""

from enum import StrEnum
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, Field

from schemas.base import LONGEST_OVERLAP_S, NO_CONTROL_CHARACTERS, GivenMoment, Message, NullMeans, Timestamp
from schemas.limits import (
    EffectiveModelConfig,
    LimitEnforcement,
    LimitType,
    ModelConfig,
    Slug,
    Threshold,
    UsageLimitUnit,
)
from schemas.targets import MaxOutputTokens, Target, UpstreamObjects

Item = TypeVar("Item")
ExternalEntityId = Annotated[str, Field(min_length=1, max_length=255)]
DisplayName = Annotated[str, Field(max_length=255)]
GivenDisplayName = Annotated[str, Field(max_length=255, pattern=NO_CONTROL_CHARACTERS)]
SecretName = Annotated[str, Field(min_length=1, max_length=255, pattern=NO_CONTROL_CHARACTERS)]


class Pagination(Message):
    """`cursor` is opaque; null where there is no next page."""

    has_more: bool
    cursor: str | None = None


class Page(Message, Generic[Item]):
    """One page of a list."""

    items: tuple[Item, ...]
    pagination: Pagination


class Region(StrEnum):
    """Stored and echoed; routes nothing."""

    UNRESTRICTED = "UNRESTRICTED"
    EU = "EU"


class CreateEndpoint(Message):
    """Body of POST /v1/gateway/endpoints."""

    slug: Slug
    region: Region = Region.UNRESTRICTED
    targets: tuple[Target, ...] = Field(min_length=1, max_length=1)
    max_output_tokens: MaxOutputTokens | None = None
    upstream_objects: UpstreamObjects | None = None


class UpdateEndpoint(Message):
    """Body of PATCH /v1/gateway/endpoints/{endpoint_id}: at least one of the first four.

    Null is as if left out; for `max_output_tokens` and `upstream_objects` it takes away what was set. The other fields
    never change: they may say what they are, so that what was read can be sent back. `updated_at` is ignored.
    """

    slug: Slug | None = None
    targets: Annotated[tuple[Target, ...], Field(min_length=1, max_length=1)] | None = None
    max_output_tokens: MaxOutputTokens | None = None
    upstream_objects: UpstreamObjects | None = None
    id: str | None = None
    region: Region | None = None
    created_at: GivenMoment | None = None
    updated_at: GivenMoment | None = None


class EndpointTombstone(Message):
    """What remains of a deleted endpoint."""

    id: str
    slug: str


class Endpoint(Message):
    """An endpoint: a slug and its one target. The last two fields are there once they were set."""

    id: str
    slug: str
    region: Region
    targets: tuple[Target, ...]
    created_at: Timestamp
    updated_at: Timestamp
    max_output_tokens: MaxOutputTokens | None = None
    upstream_objects: UpstreamObjects | None = None


class GroupMetadata(Message):
    """A group's identity in the lab's own system."""

    name: DisplayName | None = None
    external_entity_id: ExternalEntityId


class CreateGroupMetadata(Message):
    """The same of a new group: older ones may have control characters in theirs."""

    name: GivenDisplayName | None = None
    external_entity_id: Annotated[ExternalEntityId, Field(pattern=NO_CONTROL_CHARACTERS)]


class CreateGroupHierarchy(Message):
    """Where a new group hangs, and how limits act along its tree."""

    limit_enforcement: LimitEnforcement | None = None
    parent_group_id: str | None = None


def _each_slug_once(models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
    if len({model.slug for model in models}) < len(models):
        raise ValueError("a slug may appear at most once")
    return models


_EachSlugOnce = AfterValidator(_each_slug_once)


class CreateGroup(Message):
    """Body of POST /v1/gateway/groups."""

    metadata: CreateGroupMetadata
    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1), _EachSlugOnce]
    hierarchy: Annotated[CreateGroupHierarchy, NullMeans(CreateGroupHierarchy())] = CreateGroupHierarchy()


class UpdateGroupMetadata(Message):
    """A group's identity, of which the name may change; an explicit null takes it away."""

    name: GivenDisplayName | None = None
    external_entity_id: ExternalEntityId | None = None


class UpdateGroup(Message):
    """Body of PATCH /v1/gateway/groups/{group_id}: `models` replaces the whole set, `[]` or null clears it.

    But for the name, the other fields never change: they may say what they are, so that what was read can be sent back.
    `updated_at` is ignored.
    """

    metadata: UpdateGroupMetadata | None = None
    models: Annotated[tuple[ModelConfig, ...], _EachSlugOnce] | None = None
    id: str | None = None
    effective_models: tuple[EffectiveModelConfig, ...] | None = None
    hierarchy: CreateGroupHierarchy | None = None
    created_at: GivenMoment | None = None
    updated_at: GivenMoment | None = None


class GroupHierarchy(Message):
    """Where a group hangs."""

    limit_enforcement: LimitEnforcement
    parent_group_id: str | None = None


class Group(Message):
    """A group with its own and its effective limits."""

    id: str
    metadata: GroupMetadata
    models: tuple[ModelConfig, ...]
    effective_models: tuple[EffectiveModelConfig, ...]
    hierarchy: GroupHierarchy
    created_at: Timestamp
    updated_at: Timestamp


class GroupTombstone(Message):
    """What remains of a deleted group; everything below it is gone too."""

    id: str
    metadata: GroupMetadata
    deleted_at: Timestamp


class LimitUsage(Message):
    """How far a usage limit in effect is used up in its UTC day or month. Null until its first request that counts."""

    type: LimitType
    unit: UsageLimitUnit
    threshold: Threshold
    current_usage: int | None
    reset_at: Timestamp | None
    source_group: str


class GroupUsage(Message):
    """A group's usage limits by slug; slugs without one are left out."""

    customer_id: str = Field(description="The group's external_entity_id.")
    usage: dict[str, tuple[LimitUsage, ...]]


KeyMetadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
"""What a lab keeps with a key: at most 16 texts by name."""


class CreateApiKey(Message):
    """Body of POST .../api_keys."""

    name: GivenDisplayName | None = None
    expires_at: GivenMoment | None = Field(default=None, description="From when on it is refused; null: never.")
    metadata: KeyMetadata | None = None


class CreateApiKeys(Message):
    """Body of POST .../api_keys/batch: the keys to mint, all or none."""

    items: Annotated[tuple[CreateApiKey, ...], Field(min_length=1, max_length=1000)]


class CreatedApiKey(Message):
    """A minted key; `api_key` is shown this once."""

    api_key: str
    prefix: str
    name: str | None = None


class CreatedApiKeys(Message):
    """Minted keys, in the order of the body's; each `api_key` is shown this once."""

    items: tuple[CreatedApiKey, ...]


class ApiKey(Message):
    """A key without its secret. The last four fields are there once they were set, or it was used."""

    prefix: str
    name: str | None = None
    created_at: Timestamp
    expires_at: Timestamp | None = Field(default=None, description="From when on it is refused.")
    disabled: bool | None = None
    metadata: KeyMetadata | None = None
    last_used_at: Timestamp | None = Field(
        default=None, description="When its last counted request was admitted, to the minute."
    )


class UpdateApiKey(Message):
    """Body of PATCH .../api_keys/{api_key_prefix}; null takes away what was set.

    The other fields never change: they may say what they are, so that what was read can be sent back. `last_used_at` is
    ignored.
    """

    name: GivenDisplayName | None = None
    disabled: bool | None = None
    expires_at: GivenMoment | None = None
    metadata: KeyMetadata | None = None
    prefix: str | None = None
    created_at: GivenMoment | None = None
    last_used_at: GivenMoment | None = None


class RotateApiKey(Message):
    """Body of POST .../api_keys/{api_key_prefix}/rotate."""

    overlap_seconds: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP_S)] = Field(
        description="How long the old key works on; 0 ends it at once."
    )


class RotatedApiKey(Message):
    """The successor of a key; `api_key` is shown this once."""

    api_key: str
    prefix: str
    name: str | None = None
    previous_expires_at: Timestamp = Field(description="From when on the old key is refused.")


class RevokedApiKey(Message):
    """What remains of a revoked key."""

    prefix: str


class RegisterApiKey(Message):
    """Body of POST .../api_keys/register: a key that the lab made itself."""

    name: GivenDisplayName | None = None
    key: str = Field(pattern=r"^[!-~]{32,128}$", description="32 to 128 printable ASCII characters without spaces.")


class RegisteredApiKey(Message):
    """The key works from now on."""

    ok: bool


class CreateSecret(Message):
    """Body of POST /v1/secrets: creates the secret of this name, or replaces its value."""

    name: SecretName
    value: str = Field(min_length=1, max_length=16 * 1024)


class Secret(Message):
    """A secret without its value."""

    id: str
    name: str
    created_at: Timestamp


class SecretTombstone(Message):
    """What remains of a deleted secret."""

    id: str
    name: str


class ErrorDetail(Message):
    """What went wrong: which field, and what is allowed."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Message):
    """The error body of both APIs (OpenAI's shape)."""

    error: ErrorDetail
