"""Control's tables."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from runtime.database.engines import METADATA, UtcDateTime

_ID = String(26)

WORKSPACES = Table(
    "workspaces",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("operator_credential", Boolean, nullable=False),
    Column("public_key", String(64)),
    Column("created_at", UtcDateTime, nullable=False),
)
"""`public_key` is base64 of the 32 bytes of an Ed25519 key, with which the lab signs the keys that it registers."""

ORG_PREFIXES = Table(
    "org_prefixes",
    METADATA,
    Column("folded", String(255), primary_key=True),
    Column("prefix", String(255), nullable=False),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False, index=True),
)
"""`folded` is what is compared; `prefix` is what the operator wrote."""

WORKSPACE_HOSTS = Table(
    "workspace_hosts",
    METADATA,
    Column("host", String(253), primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False, index=True),
)
"""Host names under which one workspace alone is served."""

MANAGEMENT_KEYS = Table(
    "management_keys",
    METADATA,
    Column("prefix", String(16), primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False, index=True),
    Column("sha256", String(64), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)

SECRETS = Table(
    "secrets",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("sealed", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "workspace_id", "name", unique=True),
    Index(None, "workspace_id", "id"),
)

ENDPOINTS = Table(
    "endpoints",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False),
    Column("slug", String(255), nullable=False, unique=True),
    Column("region", String(16), nullable=False),
    Column("target", JSON, nullable=False),
    Column("secret_id", ForeignKey("secrets.id"), index=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("max_output_tokens", Integer),
    Column("upstream_objects", Boolean),
    Index(None, "workspace_id", "id"),
)
"""`secret_id` is the target's own, beside it so that a secret in use cannot go."""

GROUPS = Table(
    "groups",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False),
    Column("external_entity_id", String(255), nullable=False),
    Column("name", String(255)),
    Column("parent_group_id", ForeignKey("groups.id"), index=True),
    Column("root_id", _ID, nullable=False, index=True),
    Column("depth", Integer, nullable=False),
    Column("ancestor_ids", JSON, nullable=False),
    Column("limit_enforcement", String(16), nullable=False),
    Column("models", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime),
    Column("deleted_at", UtcDateTime),
    Index(None, "workspace_id", "id"),
)
"""`depth` is 0 for a root; `ancestor_ids` begins with the parent. Parents never change."""

Index(
    "uq_groups_live_external_entity_id",
    GROUPS.c.workspace_id,
    GROUPS.c.external_entity_id,
    unique=True,
    sqlite_where=GROUPS.c.deleted_at.is_(None),
    postgresql_where=GROUPS.c.deleted_at.is_(None),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("prefix", String(16), nullable=False),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False),
    Column("group_id", ForeignKey("groups.id"), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("name", String(255)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("disabled", Boolean),
    Column("metadata", JSON(none_as_null=True)),
    Column("successor_prefix", String(16)),
    Index(None, "group_id", "id"),
)
"""`disabled` is null where it was never set; `successor_prefix` names the key that a rotation made of this one."""

Index(
    "uq_api_keys_live_prefix",
    API_KEYS.c.prefix,
    unique=True,
    sqlite_where=API_KEYS.c.revoked_at.is_(None),
    postgresql_where=API_KEYS.c.revoked_at.is_(None),
)

WEBHOOK_SETTINGS = Table(
    "webhook_settings",
    METADATA,
    Column("workspace_id", ForeignKey("workspaces.id"), primary_key=True),
    Column("url", String(2048)),
    Column("enabled", Boolean, nullable=False),
    Column("secrets", JSON, nullable=False),
    Column("usage_alerts", JSON, nullable=False, server_default=text("'[]'")),
    Column("updated_at", UtcDateTime, nullable=False),
)
"""`secrets` holds `schemas.config.SealedSecret`s, newest first; `usage_alerts` percents."""

PRICES = Table(
    "prices",
    METADATA,
    Column("workspace_id", ForeignKey("workspaces.id"), primary_key=True),
    Column("prices", JSON, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
"""`prices` is a `schemas.money.Prices`: it is set, and read, as a whole."""

AUDIT_LOG = Table(
    "audit_log",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("workspace_id", String(26), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Index(None, "workspace_id", "id"),
)
"""Who changed what: `before` is null for what is new, `after` for what is gone. Never holds a secret."""

KEPT_ANSWERS = Table(
    "kept_answers",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False),
    Column("body_sha256", String(64), nullable=False),
    Column("sealed", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "workspace_id", "created_at"),
    Index(None, "created_at"),
)
"""What a POST under an `Idempotency-Key` was answered: `name` is an HMAC of who called what under which key."""

CONSOLE_SESSIONS = Table(
    "console_sessions",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("workspace_id", ForeignKey("workspaces.id")),
    Column("key_prefix", String(16)),
    Column("begun_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime, nullable=False, index=True),
)
"""`sha256` is that of the cookie's token. No workspace and no key: the operator's."""

CONSOLE_LINKS = Table(
    "console_links",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("expires_at", UtcDateTime, nullable=False),
)
"""Links that make whoever posts them the operator, once."""

CORRECTION = Table(
    "correction",
    METADATA,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("idempotency_key", String(26), nullable=False, unique=True),
    Column("corrects", String, nullable=False, index=True),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("event", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
"""The outbox of corrections. `event` is a `schemas.usage.UsageDraft`; `sequence` numbers it as its producer would."""

CORRECTION_COUNTER = Table(
    "correction_counter",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("instance", String(26), nullable=False),
    Column("sequence", BigInteger, nullable=False),
)
"""One row, id 1, made with the first correction: the database's own instance and the last sequence it gave out."""

REQUEST_RECORD = Table(
    "request_record",
    METADATA,
    Column("request_id", String(36), primary_key=True),
    Column("workspace_id", String, nullable=False),
    Column("record", JSON, nullable=False),
    Index(None, "workspace_id", "request_id"),
)
"""Requests that were refused or failed; `record` is a `schemas.monitoring.requests.RequestRecord`.

A request id sorts by its moment. `workspace_id` is empty where the request belongs to none.
"""

REQUEST_POSITION = Table(
    "request_position",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
)
"""How far `gateway.requests.v1` and `gateway.status.v1` have been taken into the database."""

RELAY_MARK = Table(
    "relay_mark",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""How far the relay to Kafka has got; `control.store.published` says what each of its rows counts."""
