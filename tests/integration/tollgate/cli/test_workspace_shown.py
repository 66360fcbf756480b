"""`tollgate workspace list` and `show`: what the operator set, and nothing secret."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control import credentials
from tests.integration.control.furnished import PEM
from tollgate.cli import workspace as cli


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOLLGATE_MASTER_KEY", raising=False)
    return tmp_path / "data"


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.workspace, [*arguments, "--data", str(data)])


def create(data: Path, *arguments: str) -> dict[str, str]:
    made = run(data, "create", "--name", "lab", "--org-prefix", "Acme", "--json", *arguments)
    return dict(json.loads(made.stdout))


def test_list_names_every_lab_by_name(data: Path) -> None:
    made = create(data)
    other = json.loads(run(data, "create", "--name", "a lab", "--org-prefix", "b", "--json").stdout)["workspace_id"]
    run(data, "suspend", "--workspace", "lab")
    assert [json.loads(line) for line in run(data, "list", "--json").stdout.splitlines()] == [
        {"workspace_id": other, "name": "a lab", "state": "active"},
        {"workspace_id": made["workspace_id"], "name": "lab", "state": "suspended"},
    ]
    assert run(data, "list").stdout == f"a lab  {other}  active\nlab    {made['workspace_id']}  suspended\n"


def test_show_gives_a_workspace_as_it_was_made(data: Path) -> None:
    made = create(data, "--operator-credential")
    assert json.loads(run(data, "show", "--workspace", "lab", "--json").stdout) == {
        "workspace_id": made["workspace_id"],
        "name": "lab",
        "state": "active",
        "org_prefixes": ["Acme"],
        "management_keys": [{"prefix": made["api_key"][:16], "scope": "manage"}],
        "webhook_url": None,
        "webhook_enabled": True,
        "public_key_set": False,
        "operator_credential": True,
        "hosts": [],
        "usage_alerts": [],
    }


def test_show_gives_what_the_operator_set_and_no_secret(data: Path, tmp_path: Path) -> None:
    made = create(data, "--operator-credential")
    assert run(data, "create", "--name", "other", "--org-prefix", "theirs").exit_code == 0  # not shown
    read = json.loads(run(data, "issue-key", "--workspace", "lab", "--scope", "read", "--json").stdout)
    gone = json.loads(run(data, "issue-key", "--workspace", "lab", "--scope", "manage", "--json").stdout)
    run(data, "revoke-key", "--workspace", "lab", "--prefix", gone["prefix"])
    run(data, "add-prefix", "--workspace", "lab", "--org-prefix", "More")
    run(data, "set-webhook", "--workspace", "lab", "--url", "https://hooks.example/in", "--disable")
    (tmp_path / "key.pem").write_bytes(PEM)
    run(data, "set-public-key", "--workspace", "lab", "--file", str(tmp_path / "key.pem"))
    shown = run(data, "show", "--workspace", made["workspace_id"])
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert lines == {
        "workspace_id": made["workspace_id"],
        "name": "lab",
        "state": "active",
        "org_prefixes": "Acme, More",
        "management_keys": f"{made['api_key'][:16]} (manage), {read['prefix']} (read)",
        "webhook_url": "https://hooks.example/in",
        "webhook_enabled": "no",
        "public_key_set": "yes",
        "operator_credential": "yes",
        "hosts": "-",
        "usage_alerts": "-",
    }
    whole = run(data, "show", "--workspace", "lab", "--json").stdout + shown.stdout
    secrets = [made["api_key"], read["api_key"], made["webhook_secret"], credentials.digest(made["api_key"])]
    assert not [secret for secret in [*secrets, credentials.public_key(PEM)] if secret and secret in whole]
    assert run(data, "show", "--workspace", "nobody").exit_code == 1
