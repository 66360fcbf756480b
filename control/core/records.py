"""What control keeps about each thing beyond what it tells the other processes.

Never holds a query or a rule: the store fills these, the flow judges them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from schemas.api import Region
from schemas.config import EndpointRecord, GroupRecord, KeyRecord, WorkspaceState


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
class Endpoint:
    """An endpoint as it is stored."""

    record: EndpointRecord
    region: Region
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Group:
    """A live group as it is stored."""

    record: GroupRecord
    name: str | None
    created_at: datetime


Chain = Sequence[Group]
"""The group itself first, its parent next, the root last."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A developer's key as it is stored. `id` orders lists; the prefix names it to the outside."""

    id: str
    record: KeyRecord
    name: str | None
    created_at: datetime
