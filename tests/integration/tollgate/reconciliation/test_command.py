"""`tollgate reconcile` as it is typed: what it prints, and its exit codes."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from schemas.usage import UsageSource
from tests.integration.tollgate.reconciliation import desk as desks
from tests.integration.tollgate.reconciliation.desk import draft, served
from tollgate.cli import reconcile as cli


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def run(data: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.reconcile, [*words, "--data", str(data)])


async def test_it_prints_zeros_and_exits_0(data: Path) -> None:
    now = datetime.now(UTC)
    with desks.opened(data) as desk:
        await desk.pass_on(draft(1, at=now), draft(2, at=now))
        account = desk.account(*served(1, 2, completed_at=now.isoformat()))
    result = run(data, "--upstream", str(account))
    assert result.exit_code == 0, result.output
    lines = [[cell.strip() for cell in line.split("│")] for line in result.stdout.splitlines()]
    rows = {cells[1]: cells[2:-1] for cells in lines if len(cells) > 3}
    assert rows["ledger"] == rows["daily usage"] == rows["delivered"] == ["2", "20", "10"]
    assert rows["difference: daily usage"] == rows["difference: deliveries"] == ["0", "0", "0"]
    assert "No server runs on this data directory: 0 events still wait" in result.stdout
    assert "No difference." in result.stdout


async def test_a_difference_exits_1_and_is_named(data: Path) -> None:
    now = datetime.now(UTC)
    with desks.opened(data) as desk:
        await desk.pass_on(draft(1, at=now), draft(2, at=now), draft(3, at=now))
        desk.execute("DELETE FROM usage_event WHERE sequence = 2")
        account = desk.account(*served(1, 2, 3, completed_at=now.isoformat()))
    result = run(data, "--upstream", str(account))
    assert result.exit_code == 1
    assert "lacks the sequences 2 to 2" in result.stdout
    assert "request request-2: ledger none; upstream 10 in, 5 out" in result.stdout
    found = json.loads(run(data, "--upstream", str(account), "--json").stdout)
    assert (found["agrees"], found["gaps"][0]["first"]) == (False, 2)
    assert found["upstream"]["missing_in_ledger"]["requests"][0]["request_id"] == "request-2"
    (day,) = found["days"]
    assert day["daily_difference"]["input_tokens"] == day["delivery_difference"]["input_tokens"] == 10


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 3, "More than 0.01 of the tokens are estimates of complete answers."),
        (["--max-apart", "0.5"], 0, "No difference."),
        (["--max-apart", "0.49"], 3, "More than 0.49 of the tokens"),
    ],
)
async def test_too_much_that_is_estimated_exits_3(data: Path, words: list[str], code: int, said: str) -> None:
    now = datetime.now(UTC)
    with desks.opened(data) as desk:
        await desk.pass_on(draft(1, at=now), draft(2, at=now, usage_source=UsageSource.ESTIMATED))
        account = desk.account(*served(1, 2, completed_at=now.isoformat()))
    result = run(data, "--upstream", str(account), *words)
    assert result.exit_code == code, result.output
    assert said in result.stdout
    assert ("No difference" in result.stdout) == (code == 0)
    assert "estimated of complete answers: 10 in, 5 out in the ledger; 10 in, 5 out at the upstream" in result.stdout
    assert "50.00% of 30 tokens" in result.stdout
    found = json.loads(run(data, "--upstream", str(account), "--json", *words).stdout)["upstream"]
    assert (found["estimated_share"], found["exceeds_max_apart"]) == (0.5, code == 3)
    assert found["apart_sums"]["requests"] == found["estimated"]["requests"] == 1


async def test_a_difference_exits_1_whatever_is_estimated(data: Path) -> None:
    now = datetime.now(UTC)
    with desks.opened(data) as desk:
        await desk.pass_on(draft(1, at=now), draft(2, at=now, usage_source=UsageSource.ESTIMATED))
        account = desk.account(*served(1, 3, completed_at=now.isoformat()))
    assert run(data, "--upstream", str(account)).exit_code == 1


async def test_a_workspace_is_shown_by_its_name_and_a_day_past_retention_as_expired(data: Path) -> None:
    with desks.opened(data) as desk:
        desk.execute(
            "INSERT INTO workspaces (id, name, state, operator_credential, created_at) "
            "VALUES ('ws', 'a [bold]lab', 'active', 0, '2026-01-01 00:00:00')"
        )
        await desk.pass_on(draft(1, at=datetime.now(UTC)))
    result = run(data, "--from", "2020-01-01")
    assert result.exit_code == 0, result.output
    assert "a [bold]lab, " in result.stdout
    assert "2020-01-01 to " in result.stdout
    assert ": expired" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "2026-1-31"], "--from: '2026-1-31' is no day"),
        (["--to", "20260131"], "--to: '20260131' is no day"),
        (["--to", "tomorrow"], "--to: 'tomorrow' is no day"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "--from 2026-01-02 lies behind --to 2026-01-01"),
        (["--upstream", "nothing.jsonl"], "nothing.jsonl: No such file"),
        (["--max-apart", "0.1"], "--max-apart is for --upstream"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(data: Path, words: list[str], said: str) -> None:
    with desks.opened(data):
        pass
    result = run(data, *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_folder_without_a_database_is_left_as_it_is(data: Path) -> None:
    result = run(data)
    assert result.exit_code == 2
    assert "there is no Tollgate data" in result.stderr
    assert not data.exists()


def test_a_spool_that_cannot_be_read_is_one_line(data: Path) -> None:
    with desks.opened(data):
        pass
    (data / "spool" / "broken.spool").write_bytes(b"no database at all" * 100)
    result = run(data)
    assert result.exit_code == 2
    assert "broken.spool is no spool of this version" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
