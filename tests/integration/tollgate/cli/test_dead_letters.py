"""`tollgate dead-letters list|redrive` over a data directory."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from runtime.database import engines as databases
from schemas.base import rfc3339
from tests.integration.control import helpers
from tests.integration.control.rows import keep, row, statuses
from tests.unit.webhooks import kit
from tollgate.cli.main import tollgate


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def run(data: Path, *words: str) -> Result:
    return CliRunner().invoke(tollgate, [*words, "--data", str(data)])


def onboard(data: Path, name: str) -> str:
    made = run(data, "workspace", "create", "--name", name, "--org-prefix", name, "--json")
    return str(json.loads(made.stdout)["workspace_id"])


def lose(data: Path, workspace_id: str, name: str, count: int, status: str = "dead") -> None:
    rows = [row(workspace_id, f"{name}-{n:04}", status, made_s=n, ended_s=n) for n in range(count)]
    with databases.sqlite(data / "tollgate.db") as database:
        keep(database, *rows)


def listed(data: Path, *words: str) -> list[dict[str, Any]]:
    result = run(data, "dead-letters", "list", "--json", *words)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_list_names_what_was_lost_and_why_the_last_first(data: Path) -> None:
    lab, other = onboard(data, "lab"), onboard(data, "other")
    lose(data, lab, "mine", 3)
    lose(data, other, "theirs", 1)
    lose(data, lab, "aside", 1, "not_due")
    assert [one["id"] for one in listed(data)] == ["mine-0002", "mine-0001", "mine-0000", "theirs-0000"]
    assert [one["id"] for one in listed(data, "--workspace", "other")] == ["theirs-0000"]
    assert [one["id"] for one in listed(data, "--not-due")] == ["aside-0000"]
    first = listed(data, "--limit", "1", "--workspace", lab)[0]
    assert (first["workspace_id"], first["reason"], first["event_count"]) == (lab, "answered 410", 3)
    assert (first["settled_at"], first["attempts"]) == (rfc3339(kit.after(2)), [])
    people = run(data, "dead-letters", "list", "--workspace", "lab").stdout.splitlines()
    assert people[0] == f'{rfc3339(kit.after(2))}  lab  mine-0002  3 event(s): "answered 410"'
    assert len(people) == 3


def test_the_list_goes_over_pages_and_keeps_its_bounds(data: Path) -> None:
    lose(data, onboard(data, "lab"), "one", 1203)
    assert len(listed(data, "--limit", "1100")) == 1100
    assert len(listed(data, "--limit", "5000")) == 1203
    window = ("--from", "2026-01-01T00:00:10Z", "--to", "2026-01-01T00:00:13Z")
    assert [one["id"] for one in listed(data, *window)] == ["one-0012", "one-0011", "one-0010"]


def test_redrive_puts_back_all_of_a_lab_and_says_how_many(data: Path) -> None:
    lab, other = onboard(data, "lab"), onboard(data, "other")
    lose(data, lab, "mine", 1203)
    lose(data, other, "theirs", 2)
    window = ("--from", "2026-01-01T00:00:10Z", "--to", "2026-01-01T00:00:13Z")
    said = run(data, "dead-letters", "redrive", "--workspace", "lab", "--json", *window)
    assert json.loads(said.stdout) == {"workspace_id": lab, "count": 3}
    people = run(data, "dead-letters", "redrive", "--workspace", "lab")
    assert people.stdout == "1,200 deliveries of lab are pending again, 10 a second\n"
    assert (said.stderr, people.stderr) == ("", "")
    with databases.sqlite(data / "tollgate.db") as database:
        now = statuses(database)
        noted = [entry for entry in helpers.audited(database) if entry.action == "deliveries.redrive"]
    assert {name for name, status in now.items() if status == "dead"} == {"theirs-0000", "theirs-0001"}
    assert [(entry.workspace_id, entry.actor) for entry in noted] == [(lab, "operator")] * 2


def test_what_cannot_be_is_one_line(data: Path) -> None:
    onboard(data, "lab")
    unknown = run(data, "dead-letters", "redrive", "--workspace", "nobody")
    assert (unknown.exit_code, "'nobody'" in unknown.stderr) == (1, True)
    backwards = run(data, "dead-letters", "redrive", "--workspace", "lab", "--from", "2026-01-02", "--to", "2026-01-01")
    assert (backwards.exit_code, "to: must not be before from" in backwards.stderr) == (1, True)
    assert run(data, "dead-letters", "redrive").exit_code == 2
    assert run(data / "none", "dead-letters", "list").exit_code == 1
