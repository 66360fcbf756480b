"""What control keeps about each thing beyond what it tells the other processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from schemas.api import Region
from schemas.config import EndpointRecord, GroupRecord, KeyRecord, SecretRecord, WorkspaceState

Shown = Mapping[str, Any]
"""JSON values of a thing, as the audit log keeps them; never a secret."""


class Scope(StrEnum):
    """What a management key may do: `read` may only GET."""

    READ = "read"
    MANAGE = "manage"


@dataclass(frozen=True, slots=True)
class ManagementKey:
    """A workspace's own credential, without its plaintext."""

    prefix: str
    workspace_id: str
    workspace_state: WorkspaceState
    sha256: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class StoredEndpoint:
    """An endpoint as it is stored."""

    record: EndpointRecord
    region: Region
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A live group as it is stored."""

    record: GroupRecord
    name: str | None
    created_at: datetime
    updated_at: datetime


class LimitBelow(NamedTuple):
    """A limit that a group below another sets."""

    group_id: str
    place: tuple[str, str, str]
    """Slug, type, unit."""
    threshold: int


Chain = Sequence[StoredGroup]
"""The group itself first, its parent next, the root last."""


@dataclass(frozen=True, slots=True)
class StoredApiKey:
    """A developer's key as it is stored. `id` orders lists; the prefix names it to the outside."""

    id: str
    record: KeyRecord
    name: str | None
    created_at: datetime
    disabled: bool | None = None
    """None: never set; the record says which holds."""
    metadata: dict[str, str] | None = None
    successor_prefix: str | None = None
    """The key that a rotation made of this one."""


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """An upstream's credential as it is stored: encrypted."""

    record: SecretRecord
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a POST was answered, sealed with the master key: it may hold a credential."""

    name: str
    workspace_id: str
    body_sha256: str
    sealed: str


@dataclass(frozen=True, slots=True)
class Session:
    """One person's time at the console, from sign-in on; found by its token's SHA-256."""

    sha256: str
    workspace_id: str | None
    """None for the operator."""
    key_prefix: str | None
    """The management key it began with; None for the operator."""
    begun_at: datetime
    used_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: by whom, of what, from what to what."""

    id: str
    at: datetime
    workspace_id: str
    actor: str
    """`operator`, or the prefix of the management key that was used."""
    action: str
    subject: str
    before: Shown | None
    after: Shown | None
