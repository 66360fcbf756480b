"""`tollgate export` and `tollgate events tail` over a data directory that metering has filled."""

import csv
import json
import os
import pty
import subprocess
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyarrow import parquet

from metering.store import transaction
from runtime.clock import steady
from runtime.database import engines
from schemas.base import rfc3339
from tests.support import processes
from tests.unit.metering.factories import HandClock, batch, correction, event
from tollgate import installation
from tollgate.cli.main import tollgate
from tollgate.reports import exports

LONG_AGO = timedelta(hours=1)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose lab has five events and a correction today."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    made = invoke("workspace", "create", "--name", "lab", "--org-prefix", "org", "--data", str(folder), "--json")
    lab = json.loads(made)["workspace_id"]
    now = steady()() - LONG_AGO
    events = [event(number, timestamp=now, workspace_id=lab, request_metadata={"n": 'a,"b"'}) for number in range(1, 6)]
    events[1] = events[1].model_copy(update={"route": "embeddings"})
    stretch = batch([*events, correction(6, timestamp=now, workspace_id=lab)], topic="spool/proxy-a")
    with engines.sqlite(folder / installation.DATABASE_FILE) as opened:
        opened.write_now(lambda connection: transaction.apply(connection, stretch, HandClock(now)))
    return folder


def invoke(*words: str, code: int = 0) -> str:
    ended = CliRunner().invoke(tollgate, words)
    assert ended.exit_code == code, ended.output
    return ended.stdout if code == 0 else ended.stderr


def today() -> str:
    return str((steady()() - LONG_AGO).date())


def test_a_stretch_of_days_is_exported_with_both_its_ends(data: Path, tmp_path: Path) -> None:
    day, before = today(), str((steady()() - LONG_AGO - timedelta(days=1)).date())
    one = invoke("export", "--day", day, "--data", str(data))
    for first, last in ((day, day), (before, day)):
        assert invoke("export", "--from", first, "--to", last, "--data", str(data)) == one
    assert len(invoke("export", "--from", before, "--to", before, "--data", str(data)).splitlines()) == 1
    out = tmp_path / "days.csv"
    said = json.loads(invoke("export", "--from", before, "--to", day, "--out", str(out), "--json", "--data", str(data)))
    assert said == {"from": before, "to": day, "format": "csv", "out": str(out), "events": 6}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--to", "2026-01-01"),
        ("--day", "2026-01-01", "--to", "2026-01-01"),
        ("--day", "2026-01-01", "--from", "2026-01-01"),
        ("--from", "2026-01-02", "--to", "2026-01-01"),
    ],
)
def test_days_to_export_that_cannot_be_are_refused(data: Path, words: tuple[str, ...]) -> None:
    assert "Usage:" in invoke("export", *words, "--data", str(data), code=2)


def test_csv_holds_every_event_of_the_day(data: Path) -> None:
    rows = list(csv.DictReader(invoke("export", "--day", today(), "--data", str(data)).splitlines()))
    assert list(rows[0]) == list(exports.COLUMNS)
    assert [int(row["sequence"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert sum(int(row["input_tokens"]) for row in rows) == 5 * 10 - 3
    assert json.loads(rows[0]["request_metadata"]) == {"n": 'a,"b"'}
    assert (rows[0]["kind"], rows[5]["kind"], rows[5]["latency_ms"]) == ("usage", "correction", "")
    assert [row["route"] for row in rows[:2]] == ["chat.completions", "embeddings"]
    assert rows[0]["timestamp"].endswith("Z")
    assert {row["workspace"] for row in rows} == {"lab"}


def test_parquet_has_types_and_the_same_figures(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "day.parquet"
    said = invoke("export", "--day", today(), "--format", "parquet", "--out", str(out), "--data", str(data), "--json")
    assert json.loads(said)["events"] == 6
    table = parquet.read_table(out)
    assert table.column_names == list(exports.COLUMNS)
    assert sum(table["output_tokens"].to_pylist()) == 5 * 5 - 1
    assert table["timestamp"].to_pylist()[0].tzinfo is not None
    assert set(table["workspace"].to_pylist()) == {"lab"}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["day.parquet"]


def on_a_terminal(*words: str, stdout: int | None = None) -> str:
    """Run a command whose stderr is a terminal, and stdout too unless it is given; return what the terminal shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [processes.TOLLGATE, *words],
        env=processes.environment() | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123 - Linux: an error is its end
            while some := terminal.read(4096):
                shown += some
        assert process.wait(processes.START_S) == 0, shown
    return shown.decode()


def test_a_progress_bar_is_shown_on_a_terminal_and_never_takes_what_goes_to_a_file(data: Path, tmp_path: Path) -> None:
    words = ["export", "--day", today(), "--data", str(data)]
    with (tmp_path / "day.csv").open("w") as file:
        shown = on_a_terminal(*words, stdout=file.fileno())
    assert f"events of {today()}" in shown
    assert (tmp_path / "day.csv").read_text() == invoke(*words)


def test_csv_on_a_terminal_has_no_progress_bar_in_it(data: Path) -> None:
    words = ["export", "--day", today(), "--data", str(data)]
    shown = on_a_terminal(*words).replace("\r", "")
    assert shown == invoke(*words)


@pytest.mark.parametrize("words", [["export", "--out", "day.csv", "--day"], ["export", "--day"], ["reconcile", "--to"]])
def test_without_a_terminal_there_is_no_progress_bar(
    data: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # colours for a log are no terminal
    since = ["--from", today()] if words[0] == "reconcile" else []  # a day that ends meanwhile is none of its business
    ended = CliRunner().invoke(tollgate, [*words, today(), *since, "--data", str(data)])
    assert (ended.exit_code, ended.stderr) == (1 if words[0] == "reconcile" else 0, ""), ended.output


def test_a_day_without_events_is_an_empty_file(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "day.csv"
    assert "0 events" in invoke("export", "--day", "2020-01-01", "--out", str(out), "--data", str(data))
    assert out.read_text().count("\n") == 1
    ended = CliRunner().invoke(tollgate, ["export", "--day", "2020-01-01", "--data", str(data)])
    assert (ended.exit_code, ended.stdout.count("\n"), ended.stderr) == (0, 1, "No events of 2020-01-01.\n")


def test_what_cannot_be_is_one_line(data: Path, tmp_path: Path) -> None:
    words = ["export", "--day", today(), "--data", str(data)]
    assert "need --out" in invoke(*words, "--json", code=2)
    assert "No such file" in invoke(*words, "--out", str(tmp_path / "none" / "day.csv"), code=1)
    assert "there is no Tollgate data" in invoke("export", "--day", today(), "--data", str(tmp_path / "no"), code=1)


def test_tail_shows_each_event_once_in_the_ledgers_order(data: Path) -> None:
    since = rfc3339(steady()() - 2 * LONG_AGO)[:19] + "Z"
    words = ["events", "tail", "--workspace", "lab", "--data", str(data), "--once", "--since", since]
    lines = [json.loads(line) for line in invoke(*words, "--json").splitlines()]
    assert [line["producer"]["sequence"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(line["recordedAt"] for line in lines)
    plain = invoke(*words).splitlines()
    assert "10 in" in plain[0]
    assert "correction of" in plain[5]


def test_tail_names_an_unknown_workspace(data: Path) -> None:
    said = invoke("events", "tail", "--workspace", "nobody", "--data", str(data), "--once", code=1)
    assert "none is named 'nobody'" in said
