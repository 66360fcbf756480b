"""Writes events of the ledger as CSV or Parquet (contract 6).

Never holds a whole day in memory, and never leaves a half-written file under the name that was asked for.
"""

import csv
import json
import os
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from metering.store.pages import Entry
from runtime.database import statements
from schemas.base import rfc3339

ROW_GROUP = 10_000
"""How many rows of a Parquet file lie together, and are held in memory."""

_TEXTS = (
    "idempotency_key",
    "request_id",
    "workspace_id",
    "group_id",
    "external_entity_id",
    "api_key_prefix",
    "model_slug",
    "usage_source",
    "outcome",
    "kind",
    "corrects",
    "reason",
    "charged_groups",
    "request_metadata",
    "instance",
)
_NUMBERS = ("input_tokens", "output_tokens", "cached_input_tokens", "latency_ms", "first_byte_ms", "sequence")
_MOMENTS = ("timestamp", "recorded_at")
COLUMNS = (*_MOMENTS, *_TEXTS, *_NUMBERS, "stream")


class MissingLibraryError(Exception):
    """The library that writes Parquet is not installed; the message says how it comes."""


def write_csv(entries: Iterable[Entry], out: Path | None) -> int:
    """Write a header and one line for each event, to standard output without `out`; return how many."""
    if out is None:
        return _csv(entries, sys.stdout)
    fresh = _beside(out)
    with fresh.open("w", encoding="utf-8", newline="") as file:
        count = _csv(entries, file)
    fresh.replace(out)
    return count


def write_parquet(entries: Iterable[Entry], out: Path) -> int:
    """Write a Parquet file; return how many events it holds. Raise MissingLibraryError."""
    try:
        import pyarrow as arrow  # noqa: PLC0415 (an extra: most installations do without)
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise MissingLibraryError("Parquet needs pyarrow: install tollgate-gateway[parquet], or use csv") from None
    moment = arrow.timestamp("ms", tz="UTC")
    types = dict.fromkeys(_MOMENTS, moment) | {name: arrow.string() for name in _TEXTS}
    types |= {name: arrow.int64() for name in _NUMBERS} | {"stream": arrow.bool_()}
    schema = arrow.schema([(name, types[name]) for name in COLUMNS])
    fresh, count = _beside(out), 0
    with parquet.ParquetWriter(fresh, schema) as file:
        for rows in statements.batches(map(_row, entries), ROW_GROUP):
            file.write_table(arrow.Table.from_pylist(rows, schema))
            count += len(rows)
    fresh.replace(out)
    return count


def _csv(entries: Iterable[Entry], file: Any) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for entry in entries:
        writer.writerow(map(_text, _row(entry).values()))
        count += 1
    return count


def _row(entry: Entry) -> dict[str, Any]:
    event = entry.event
    values = {
        **dict(event),
        **dict(event.tokens),
        **dict(event.producer),
        "recorded_at": entry.recorded_at,
        "usage_source": event.usage_source.value,
        "outcome": event.outcome.value,
        "kind": event.kind.value,
        "charged_groups": json.dumps(event.charged_groups),
        "request_metadata": None if event.request_metadata is None else json.dumps(event.request_metadata),
    }
    return {name: values[name] for name in COLUMNS}


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, bool):
        return str(value).lower()
    return value


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.{os.getpid()}")
