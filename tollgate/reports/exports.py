"""Writes events of the ledger as CSV or Parquet (contract 6).

Never leaves a half-written file under the name that was asked for.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from domain import spreadsheets
from metering.store.pages import LedgerEntry
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
    "parent_groups",
    "request_metadata",
    "instance",
    "route",
)
_NUMBERS = ("input_tokens", "output_tokens", "cached_input_tokens", "latency_ms", "first_byte_ms", "sequence")
_MOMENTS = ("timestamp", "recorded_at")
COLUMNS = (*_MOMENTS, *_TEXTS, *_NUMBERS, "stream", "workspace")
"""`workspace` is the name of the one that `workspace_id` names."""

Names = Mapping[str, str]
"""By its id the name of each workspace."""


class MissingLibraryError(Exception):
    """The library that writes Parquet is not installed; the message says how it comes."""


def write_csv(entries: Iterable[LedgerEntry], out: Path | None, names: Names) -> int:
    """Write a header and one line for each event, to standard output without `out`; return how many."""
    if out is None:
        return _csv(entries, sys.stdout, names)
    with _opened(out) as file, io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True) as text:
        return _csv(entries, text, names)


def write_parquet(entries: Iterable[LedgerEntry], out: Path, names: Names) -> int:
    """Write a Parquet file; return how many events it holds. Raise MissingLibraryError."""
    try:
        import pyarrow as arrow  # noqa: PLC0415 (an extra: most installations do without)
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise MissingLibraryError("Parquet needs pyarrow: install tollgate-gateway[parquet], or use csv") from None
    moment = arrow.timestamp("ms", tz="UTC")
    types = dict.fromkeys(_MOMENTS, moment) | {name: arrow.string() for name in _TEXTS}
    types |= {name: arrow.int64() for name in _NUMBERS} | {"stream": arrow.bool_(), "workspace": arrow.string()}
    schema = arrow.schema([(name, types[name]) for name in COLUMNS])
    count = 0
    with _opened(out) as opened, parquet.ParquetWriter(_Counted(opened), schema) as file:
        for rows in statements.batches((_row(entry, names) for entry in entries), ROW_GROUP):
            file.write_table(arrow.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


class _Counted(io.RawIOBase):
    """A file that says how much was written to it, as Parquet asks, also where it is a pipe."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        self._written += self._file.write(data)
        return len(data)


@contextmanager
def _opened(out: Path) -> Iterator[IO[bytes]]:
    """Open `out` to be written whole or not at all; what is no plain file (a pipe, a device, a link) is written into.

    A plain file is put in its place once it is whole. Renamed over `/dev/stdout`, it would take that away from all.
    """
    if out.is_symlink() or (out.exists() and not out.is_file()):
        with out.open("wb") as file:
            yield file
        return
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            yield file
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)


def _csv(entries: Iterable[LedgerEntry], file: IO[str], names: Names) -> int:
    # The library quotes what holds a character of its line end: so this one holds all that any reader may split on.
    writer = csv.writer(_Lines(file), lineterminator=_SPLITS)
    writer.writerow(COLUMNS)
    count = 0
    for entry in entries:
        writer.writerow(map(_text, _row(entry, names).values()))
        count += 1
    return count


_SPLITS = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"


class _Lines:
    """Ends each line of the writer's as RFC 4180 says."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix(_SPLITS) + "\r\n")


def _row(entry: LedgerEntry, names: Names) -> dict[str, Any]:
    event = entry.event
    values = {
        **dict(event),
        **dict(event.tokens),
        **dict(event.producer),
        "recorded_at": entry.recorded_at,
        "workspace": names.get(event.workspace_id),
        "usage_source": event.usage_source.value,
        "outcome": event.outcome.value,
        "kind": event.kind.value,
        "charged_groups": json.dumps(event.charged_groups),
        "parent_groups": json.dumps(event.parent_groups),
        "request_metadata": None if event.request_metadata is None else json.dumps(event.request_metadata),
    }
    return {name: values[name] for name in COLUMNS}


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return spreadsheets.safe(value)
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, bool):
        return str(value).lower()
    return value
