"""Tables of what processes told of themselves, and of the reconciliations that the console began."""

from sqlalchemy import JSON, Column, Date, String, Table, Text

from runtime.database.engines import METADATA, UtcDateTime

PROCESS_STATUS = Table(
    "process_status",
    METADATA,
    Column("process", String(26), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("record", JSON, nullable=False),
)
"""The newest that each process told of itself: a `schemas.monitoring.status.ProcessStatus` without its minute."""

STATUS_LAGS = Table(
    "status_lags",
    METADATA,
    Column("unit", String(6), primary_key=True),
    Column("start", UtcDateTime, primary_key=True),
    Column("process", String(26), primary_key=True),
    Column("lags", JSON, nullable=False),
)
"""The greatest lags of each process in a minute or, `process` empty, of all in an hour, by stage."""

STATUS_CALLS = Table(
    "status_calls",
    METADATA,
    Column("unit", String(6), primary_key=True),
    Column("start", UtcDateTime, primary_key=True),
    Column("workspace_id", String(26), primary_key=True),
    Column("process", String(26), primary_key=True),
    Column("calls", JSON, nullable=False),
)
"""A workspace's calls that ended in a minute at each proxy or, `process` empty, in an hour at all of them.

`calls` is a list of `schemas.monitoring.status.CallCounts`, one for each group and slug.
"""

RECONCILIATION = Table(
    "reconciliation",
    METADATA,
    Column("id", String(26), primary_key=True),
    Column("day", Date, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("verdict", String(16)),
    Column("text", Text),
)
"""An id sorts by its moment. What is not there until the end is null."""
