"""`tollgate export`: what a value may hold without a row more, and what `--out` may name."""

import csv
import io
import os
import threading
from pathlib import Path

import pytest
from pyarrow import parquet

from metering.store import transaction
from runtime.clock import steady
from runtime.database import engines
from tests.integration.tollgate.cli.test_events import LONG_AGO, data, invoke, today
from tests.unit.metering.factories import batch, event
from tests.unit.webhooks.kit import HandClock
from tollgate import installation
from tollgate.reports import exports

__all__ = ["data"]

ODD = ["acme\rEvil", "two\nlines\u001b[31m", "\u009b31m", "a\u2028b", "a\x85b", "a\x0bb", "=cmd|' /C calc'!A0"]


def test_no_value_makes_a_row_more_for_any_reader(data: Path, tmp_path: Path) -> None:
    now = steady()() - LONG_AGO
    stretch = batch(
        [event(number, timestamp=now, external_entity_id=name) for number, name in enumerate(ODD, 10)], topic="odd"
    )
    with engines.sqlite(data / installation.DATABASE_FILE) as opened:
        opened.write_now(lambda connection: transaction.apply(connection, stretch, HandClock(now)))
    out = tmp_path / "day.csv"
    invoke("export", "--day", today(), "--data", str(data), "--out", str(out))
    text = out.read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 6 + len(ODD)
    assert {row["external_entity_id"] for row in rows} >= set(map(exports.spreadsheet_safe, ODD))
    for line in text.split("\r\n")[1:-1]:
        outside = "".join(line.split('"')[::2])
        assert len(outside.splitlines()) <= 1, f"a reader may split {line!r}"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_link_is_written_through_and_a_plain_file_replaced_whole(data: Path, tmp_path: Path, kind: str) -> None:
    plain, link = tmp_path / "plain", tmp_path / "link"
    plain.write_text("before")
    link.symlink_to(plain)
    invoke("export", "--day", today(), "--data", str(data), "--format", kind, "--out", str(link))
    assert link.is_symlink()
    before = plain.stat().st_ino
    invoke("export", "--day", today(), "--data", str(data), "--format", kind, "--out", str(plain))
    assert plain.stat().st_ino != before
    if kind == "csv":
        assert plain.read_bytes().count(b"\r\n") == 7
    else:
        assert parquet.read_table(plain).num_rows == 6


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_fifo_is_written_into_and_stays_one(data: Path, tmp_path: Path, kind: str) -> None:
    pipe, read = tmp_path / "pipe", bytearray()
    os.mkfifo(pipe)

    def drain() -> None:
        read.extend(pipe.read_bytes())

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    said = invoke("export", "--day", today(), "--data", str(data), "--format", kind, "--out", str(pipe))
    reader.join(60)
    assert "6 events" in said
    assert pipe.is_fifo()
    if kind == "csv":
        assert bytes(read).count(b"\r\n") == 7
    else:
        assert parquet.read_table(io.BytesIO(bytes(read))).num_rows == 6
