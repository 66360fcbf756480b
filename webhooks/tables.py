"""The tables of the dispatcher: deliveries, their events, their attempts and the position of intake.

Never holds a query: `webhooks.store` is the one place that asks them.
"""

from sqlalchemy import (
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
)

from runtime.database import METADATA, UtcDateTime

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
    Column("attempt_count", Integer, nullable=False, default=0),
    Column("run_attempts", Integer, nullable=False, default=0),
    Column("retrying", Boolean, nullable=False, default=False),
    Column("first_attempt_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime),
    Column("claimable_at", UtcDateTime),
    Column("claim", String(26)),
    Index(None, "status", "workspace_id", "retrying", "claimable_at"),
)
"""A run is the attempts since the delivery was made or redriven; `first_attempt_at` starts its clock.

`claimable_at` is `next_attempt_at` while nobody has claimed the delivery, and the end of the lease while somebody has:
so a dispatcher that died frees its claims by the passing of time alone. Both are null unless pending.
"""

DELIVERY_EVENT = Table(
    "delivery_event",
    METADATA,
    Column("workspace_id", String, nullable=False),
    Column("idempotency_key", String, nullable=False),
    # Deferred: which events are new, and so which deliveries there are, is known only after these rows are in.
    Column(
        "delivery_id",
        String(36),
        ForeignKey("delivery.id", deferrable=True, initially="DEFERRED"),
        nullable=False,
        index=True,
    ),
    Column("day", Date, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    PrimaryKeyConstraint("workspace_id", "idempotency_key"),
)

ATTEMPT = Table(
    "attempt",
    METADATA,
    Column("delivery_id", String(36), ForeignKey("delivery.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("status_code", Integer),
    Column("error", String),
    Column("duration_ms", BigInteger, nullable=False),
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
