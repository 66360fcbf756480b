"""Configuration as it travels from control to the other processes (counting 8).

A record is the whole state of one thing; a change without a record is its end. Secrets stand in it sealed.
"""

from enum import StrEnum

from pydantic import Field

from schemas.base import InternalRecord, Timestamp
from schemas.limits import LimitEnforcement, ModelConfig
from schemas.money import Price
from schemas.targets import Target


class ConfigKind(StrEnum):
    """What a configuration record describes."""

    WORKSPACE = "workspace"
    ENDPOINT = "endpoint"
    GROUP = "group"
    KEY = "key"
    SECRET = "secret"
    WEBHOOK = "webhook"
    PRICE = "price"


class WorkspaceState(StrEnum):
    """Whether a workspace may use the product."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class WorkspaceRecord(InternalRecord):
    """A lab's tenant. `id` is the change's id."""

    id: str
    name: str
    state: WorkspaceState
    operator_credential: bool = Field(description="Whether the operator's credential may serve BASETEN targets.")
    hosts: tuple[str, ...] = Field(default=(), description="Host names under which this workspace alone is served.")


class EndpointRecord(InternalRecord):
    """A slug and its one target."""

    id: str
    workspace_id: str
    slug: str
    target: Target
    created_at: Timestamp
    max_output_tokens: int | None = Field(default=None, description="What the model can answer at most.")
    upstream_objects: bool | None = Field(
        default=None, description="Whether bodies may name objects at the upstream; null: never set, as false."
    )


class GroupRecord(InternalRecord):
    """A node of a customer tree. Parents never change, so the way to the root is fixed."""

    id: str
    workspace_id: str
    external_entity_id: str
    parent_group_id: str | None
    ancestor_ids: tuple[str, ...] = Field(description="Parent first, root last; empty for a root.")
    limit_enforcement: LimitEnforcement
    models: tuple[ModelConfig, ...]


KEY_PREFIX_LENGTH = 16
"""A key is known by its first 16 characters (contract 1)."""


class KeyRecord(InternalRecord):
    """A developer's credential; the change's id is its prefix (first 16 characters)."""

    prefix: str
    workspace_id: str
    group_id: str
    sha256: str = Field(description="Hex SHA-256 of the whole key; the plaintext is nowhere.")
    expires_at: Timestamp | None = Field(default=None, description="From when on it works no longer; null: never.")
    disabled: bool = False


class SecretRecord(InternalRecord):
    """An upstream's credential that an endpoint's target names; the change's id is `id`."""

    id: str
    workspace_id: str
    sealed: str = Field(description="Encrypted with the master key, for this workspace and id (`runtime.vault`).")


class SealedSecret(InternalRecord):
    """A signing secret, encrypted with the master key (`runtime.vault`)."""

    sealed: str
    expires_at: Timestamp | None = Field(default=None, description="End of the overlap; null for the current one.")


class WebhookRecord(InternalRecord):
    """Where a workspace's billing webhooks go; the change's id is the workspace's."""

    workspace_id: str
    url: str | None
    enabled: bool
    secrets: tuple[SealedSecret, ...] = Field(description="Newest first; each that is valid signs.")
    usage_alerts: tuple[int, ...] = Field(
        default=(), description="At which percents of a day or month limit the lab is told, ascending."
    )


class PriceRecord(InternalRecord):
    """One price of a workspace's list. A list may be as large as a topic's record, so that each travels alone."""

    workspace_id: str
    price: Price


ConfigRecord = WorkspaceRecord | EndpointRecord | GroupRecord | KeyRecord | SecretRecord | WebhookRecord | PriceRecord
"""Told apart by their required fields, of which no two records share the whole set."""

RECORD_OF: dict[ConfigKind, type[ConfigRecord]] = {
    ConfigKind.WORKSPACE: WorkspaceRecord,
    ConfigKind.ENDPOINT: EndpointRecord,
    ConfigKind.GROUP: GroupRecord,
    ConfigKind.KEY: KeyRecord,
    ConfigKind.SECRET: SecretRecord,
    ConfigKind.WEBHOOK: WebhookRecord,
    ConfigKind.PRICE: PriceRecord,
}
"""What a change of each kind holds."""


class ConfigChange(InternalRecord):
    """One step of the configuration's history. Versions compare per (kind, id); a lower one is ignored."""

    version: int
    kind: ConfigKind
    id: str
    record: ConfigRecord | None = Field(description="The new state, or null where the thing is gone.")
    at: Timestamp | None = Field(default=None, description="When it was committed; null where that is not known.")
