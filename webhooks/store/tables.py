"""The tables of the dispatcher: deliveries, their events, their attempts and the position of intake."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    false,
    literal_column,
)

from runtime.database.engines import METADATA, UtcDateTime
from webhooks.core.deliveries import Queue

# No lengths on texts that come with events: what a proxy accepted must never stop its partition here.
DELIVERY = Table(
    "delivery",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("workspace_id", String, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", String),
    Column("body", LargeBinary, nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("settled_at", UtcDateTime),
    Column("first_died_at", UtcDateTime),
    Column("redrive_after", UtcDateTime),
    Column("attempt_count", Integer, nullable=False, default=0),
    Column("run_attempts", Integer, nullable=False, default=0),
    Column("queue", String(8), nullable=False, default=Queue.FIRST.value),
    Column("first_attempt_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime),
    Column("claimable_at", UtcDateTime),
    Column("claim", String(26)),
    Column("traces", JSON(none_as_null=True)),
    Index(None, "status", "workspace_id", "settled_at"),
    Index(None, "workspace_id", "created_at", "id"),
)
"""A run is the attempts since the delivery was made or redriven; `first_attempt_at` starts its clock.

`claimable_at` is `next_attempt_at` while nobody has claimed the delivery, and the end of the lease while somebody has:
so a dispatcher that died frees its claims by the passing of time alone. Both are null unless pending; a dead letter
that is a probe has the end of its lease alone. `settled_at` is when it was delivered, given up or put aside as not due;
`first_died_at`, when it was first given up, stands however often it is redriven. `redrive_after` is from when on its
receiver's next success redrives a dead letter by itself; null: that never does. `traces` are the `traceparent`s of its
events; null: none has one.
"""

PENDING = DELIVERY.c.status == literal_column("'pending'")
"""The condition of the index below; a bound parameter would keep an engine from using it."""

Index(
    "ix_delivery_pending",
    DELIVERY.c.workspace_id,
    DELIVERY.c.queue,
    DELIVERY.c.claimable_at,
    postgresql_where=PENDING,
    sqlite_where=PENDING,
)

DELIVERY_EVENT = Table(
    "delivery_event",
    METADATA,
    Column("day", Date, nullable=False),
    Column("workspace_id", String, nullable=False),
    Column("idempotency_key", String, nullable=False),
    Column("delivery_id", String(36), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    PrimaryKeyConstraint("day", "workspace_id", "idempotency_key"),
)
"""What intake knows already. A row outlives its delivery (`webhooks.store.retention`), so it does not refer to it.

Unique as in the ledger: a key within its day. The day first, so that the days of now are the part in memory.
"""

ATTEMPT = Table(
    "attempt",
    METADATA,
    Column("delivery_id", String(36), ForeignKey("delivery.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("status_code", Integer),
    Column("error", String),
    Column("duration_ms", BigInteger, nullable=False),
    Column("answer", String),
    PrimaryKeyConstraint("delivery_id", "number"),
)

WEBHOOK_POSITION = Table(
    "webhook_position",
    METADATA,
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    PrimaryKeyConstraint("topic", "partition"),
)

WEBHOOK_RECEIVER = Table(
    "webhook_receiver",
    METADATA,
    Column("workspace_id", String, primary_key=True),
    Column("dead_in_row", Integer, nullable=False),
    Column("probe_at", UtcDateTime),
    Column("owes_redrive", Boolean, nullable=False, default=False, server_default=false()),
    Column("redrive_at", UtcDateTime),
    Column("refused_in_row", Integer, nullable=False, default=0),
    Column("redriven_at", UtcDateTime),
)
"""How a receiver does (`webhooks.core.health`). No row: it never lost a delivery, and none of its own was redriven.

`redriven_at` is from when on redriven deliveries may be claimed again; null: at once.
"""
