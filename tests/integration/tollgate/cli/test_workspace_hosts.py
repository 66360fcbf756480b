"""`tollgate workspace add-host` and `remove-host`: a name is one lab's, however it is written."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.store.workspaces import SqlWorkspaces
from runtime.database import engines as databases
from tollgate.cli import workspace as cli


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.workspace, [*arguments, "--data", str(data)])


def test_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_MASTER_KEY", raising=False)
    data = tmp_path / "data"
    made = json.loads(run(data, "create", "--name", "lab", "--org-prefix", "Acme", "--json").stdout)
    run(data, "create", "--name", "other", "--org-prefix", "globex")
    words = ("--workspace", "lab", "--host")
    for host in ("API.Your-Lab.com.", "api.your-lab.com:8443", "b.your-lab.com"):
        assert run(data, "add-host", *words, host).exit_code == 0
    result = run(data, "remove-host", *words, "B.your-lab.com", "--json")
    assert json.loads(result.stdout) == {"workspace_id": made["workspace_id"], "hosts": ["api.your-lab.com"]}
    for host in ("localhost", "-a.com", "a_b.com", "a..com", "10.0.0.1/8", "[::1]", "", f"{'a' * 64}.com"):
        refused = run(data, "add-host", *words, host)
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1), host
        assert "must be a domain name" in refused.stderr
    for verb, message in (("add-host", "belongs to a workspace already"), ("remove-host", "is not this workspace's")):
        refused = run(data, verb, "--workspace", "other", "--host", "api.your-lab.com")
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
        assert message in refused.stderr
    with databases.sqlite(data / "tollgate.db") as database:
        kept = database.read_now(lambda connection: SqlWorkspaces(connection).every())
    assert [record.hosts for record in kept if record.hosts] == [("api.your-lab.com",)]
