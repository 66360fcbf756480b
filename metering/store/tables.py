"""The tables of what is counted: daily usage and limit totals, each in parts by lane; and their rows as values.

A row has one writer, its lane's owner. What each batch changes is in no index, so that PostgreSQL changes a row in its
place. `changed_at` is the lane's next offset as the last change left it.
"""

from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, Column, Date, Index, Row, String, Table, text

from metering.core.sums import Counter, LimitTotal
from runtime.database.engines import METADATA, UtcDateTime
from schemas.daily import DailyUsage

USAGE_DAILY = Table(
    "usage_daily",
    METADATA,
    Column("day", Date, primary_key=True),
    Column("lane", String, primary_key=True),
    Column("group_id", String, primary_key=True),
    Column("model_slug", String, primary_key=True),
    Column("workspace_id", String, nullable=False),
    Column("external_entity_id", String, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("corrections", BigInteger, nullable=False),
    Column("corrected_input_tokens", BigInteger, nullable=False),
    Column("corrected_output_tokens", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(None, "group_id", "day"),
)

KEY_DAILY = Table(
    "key_daily",
    METADATA,
    Column("day", Date, primary_key=True),
    Column("lane", String, primary_key=True),
    Column("group_id", String, primary_key=True),
    Column("api_key_prefix", String, primary_key=True),
    Column("model_slug", String, primary_key=True),
    Column("priced_day", Date, primary_key=True),
    Column("workspace_id", String, nullable=False),
    Column("external_entity_id", String, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("corrections", BigInteger, nullable=False),
    Column("corrected_input_tokens", BigInteger, nullable=False),
    Column("corrected_output_tokens", BigInteger, nullable=False),
    Column("last_used_at", UtcDateTime),
    Index(None, "group_id", "api_key_prefix"),
)
"""Daily usage by key. `priced_day` is `day`, except for a correction the day of the event that it corrects."""

LIMIT_DAILY = Table(
    "limit_daily",
    METADATA,
    Column("day", Date, primary_key=True),
    Column("lane", String, primary_key=True),
    Column("group_id", String, primary_key=True),
    Column("model_slug", String, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False, server_default=text("0")),
    Column("version", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(None, "group_id", "day"),
)


_DAILY = [column.name for column in USAGE_DAILY.columns if column.name not in {"lane", "changed_at"}]
_DAILY_VALUES = itemgetter(*[USAGE_DAILY.columns.keys().index(name) for name in _DAILY])
_COUNTER_VALUES = itemgetter(*[LIMIT_DAILY.columns.keys().index(name) for name in Counter._fields])
_FIGURES = ("requests", "tokens", "version", "input_tokens", "output_tokens", "cost")
_FIGURE_VALUES = itemgetter(*[LIMIT_DAILY.columns.keys().index(name) for name in _FIGURES])


def daily_of(row: Row[Any]) -> DailyUsage:
    """Return the daily usage that a whole row holds."""
    return DailyUsage(**dict(zip(_DAILY, _DAILY_VALUES(row), strict=True)))


def limit_of(row: Row[Any]) -> LimitTotal:
    """Return the limit total that a whole row holds."""
    return LimitTotal(Counter._make(_COUNTER_VALUES(row)), *_FIGURE_VALUES(row))
