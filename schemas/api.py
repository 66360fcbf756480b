"""Bodies of the management API (spec section 2), as the published document names their fields.

Checks what can be checked on the body alone; what needs other records is checked in `control`.
"""

from enum import StrEnum
from typing import Annotated, Generic, Self, TypeVar

from pydantic import Field, model_validator

from schemas.base import Message, Timestamp
from schemas.limits import EffectiveModelConfig, LimitEnforcement, ModelConfig, Slug
from schemas.targets import Target

Item = TypeVar("Item")
ExternalEntityId = Annotated[str, Field(min_length=1, max_length=255)]
DisplayName = Annotated[str, Field(max_length=255)]


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


class Endpoint(Message):
    """An endpoint: a slug and its one target."""

    id: str
    slug: str
    region: Region
    targets: tuple[Target, ...]
    created_at: Timestamp
    updated_at: Timestamp


class GroupMetadata(Message):
    """A group's identity in the lab's own system."""

    name: DisplayName | None = None
    external_entity_id: ExternalEntityId


class CreateGroupHierarchy(Message):
    """Where a new group hangs, and how limits act along its tree."""

    limit_enforcement: LimitEnforcement | None = None
    parent_group_id: str | None = None


class CreateGroup(Message):
    """Body of POST /v1/gateway/groups."""

    metadata: GroupMetadata
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    hierarchy: CreateGroupHierarchy = CreateGroupHierarchy()

    @model_validator(mode="after")
    def _each_slug_once(self) -> Self:
        if len({model.slug for model in self.models}) < len(self.models):
            raise ValueError("models: a slug may appear at most once")
        return self


class UpdateGroupMetadata(Message):
    """What may change of a group's identity; an explicit null takes the name away."""

    name: DisplayName | None = None


class UpdateGroup(Message):
    """Body of PATCH /v1/gateway/groups/{group_id}: `models` replaces the whole set, an empty one clears it."""

    metadata: UpdateGroupMetadata | None = None
    models: tuple[ModelConfig, ...] | None = None

    @model_validator(mode="after")
    def _each_slug_once(self) -> Self:
        models = self.models or ()
        if len({model.slug for model in models}) < len(models):
            raise ValueError("models: a slug may appear at most once")
        return self


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


class CreateApiKey(Message):
    """Body of POST .../api_keys."""

    name: DisplayName | None = None


class CreatedApiKey(Message):
    """A minted key; `api_key` is shown this once."""

    api_key: str
    prefix: str
    name: str | None = None


class ApiKey(Message):
    """A key without its secret."""

    prefix: str
    name: str | None = None


class ErrorDetail(Message):
    """What went wrong: which field, and what is allowed."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Message):
    """The error body of both APIs (OpenAI's shape)."""

    error: ErrorDetail
