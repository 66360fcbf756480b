import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from control import auth, credentials
from control.core.refusals import ForbiddenError, UnauthorizedError
from control.store import snapshot
from control.store.workspaces import SqlCredentials, SqlWebhooks, SqlWorkspaces
from domain import sealing
from runtime import clock, vault
from runtime.database import engines as databases
from schemas.config import WebhookRecord
from tests.integration.control.furnished import PEM
from tollgate.cli import audit as audit_cli
from tollgate.cli import workspace as cli
from webhooks.core import signing


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOLLGATE_MASTER_KEY", raising=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.workspace, [*arguments, "--data", str(data)])


def create(data: Path, *arguments: str) -> dict[str, Any]:
    result = run(data, "create", "--name", "lab", "--org-prefix", "Acme", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def webhook(data: Path, workspace_id: str) -> WebhookRecord:
    with databases.sqlite(data / "tollgate.db") as database:
        found = database.read_now(lambda connection: SqlWebhooks(connection).find(workspace_id))
    assert found is not None
    return found


def test_create_works_before_the_first_serve(data: Path) -> None:
    made = create(data)
    assert set(made) == {"workspace_id", "api_key", "webhook_secret"}
    assert (data / "master.key").stat().st_mode & 0o777 == 0o600
    with databases.sqlite(data / "tollgate.db") as database:
        header = f"Api-Key {made['api_key']}"
        caller = database.read_now(
            lambda connection: auth.identify(SqlCredentials(connection), header, "POST", "api.gateway.example")
        )
    assert caller.workspace_id == made["workspace_id"]
    assert made["api_key"].startswith("tgm_")
    assert made["api_key"][16] == "."


def test_the_webhook_secret_is_sealed_for_its_workspace(data: Path) -> None:
    made = create(data)
    assert len(base64.b64decode(made["webhook_secret"].removeprefix("whsec_"), validate=True)) == 32
    (sealed,) = webhook(data, made["workspace_id"]).secrets
    opener = vault.Vault(vault.load_or_create_key(data / "master.key"))
    assert opener.open(sealed.sealed, sealing.webhook_context(made["workspace_id"])) == made["webhook_secret"]
    assert made["webhook_secret"].encode() not in (data / "tollgate.db").read_bytes()


def test_the_human_form_names_every_value(data: Path) -> None:
    result = run(data, "create", "--name", "lab", "--org-prefix", "acme")
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert set(lines) == {"workspace_id", "api_key", "webhook_secret"}
    assert "not shown again" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--name", "lab", "--org-prefix", "new"], "'lab'"),
        (["--name", "new", "--org-prefix", "aCME"], "'aCME'"),
        (["--name", "new", "--org-prefix", "a/b"], "org_prefix"),
        (["--name", " ", "--org-prefix", "new"], "name"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(data: Path, arguments: list[str], complaint: str) -> None:
    create(data)
    result = run(data, "create", *arguments)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_set_webhook_keeps_the_secret_and_can_disable(data: Path) -> None:
    made = create(data)
    result = run(data, "set-webhook", "--workspace", "lab", "--url", "https://hooks.example/in?token=1", "--json")
    assert json.loads(result.stdout) == {
        "workspace_id": made["workspace_id"],
        "url": "https://hooks.example/in?token=1",
        "enabled": True,
        "usage_alerts": [],
    }
    before = webhook(data, made["workspace_id"])
    assert run(data, "set-webhook", "--workspace", made["workspace_id"], "--disable").exit_code == 0
    after = webhook(data, made["workspace_id"])
    assert after == before.model_copy(update={"enabled": False})
    assert run(data, "set-webhook", "--workspace", "lab", "--enable").exit_code == 0
    assert webhook(data, made["workspace_id"]) == before


def opened(data: Path, record: WebhookRecord) -> list[str]:
    opener = vault.Vault(vault.load_or_create_key(data / "master.key"))
    return [opener.open(secret.sealed, sealing.webhook_context(record.workspace_id)) for secret in record.secrets]


def test_a_secret_is_rotated_with_an_overlap_and_printed_once(data: Path) -> None:
    made = create(data)
    result = run(data, "rotate-secret", "--workspace", "lab", "--overlap", "60", "--json")
    rotated = json.loads(result.stdout)
    assert set(rotated) == {"secret", "previous_expires_at"}
    assert opened(data, webhook(data, made["workspace_id"])) == [rotated["secret"], made["webhook_secret"]]
    assert run(data, "rotate-secret", "--workspace", "lab", "--overlap", "60").exit_code == 0
    refused = run(data, "rotate-secret", "--workspace", "lab", "--overlap", "60")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    ended = run(data, "rotate-secret", "--workspace", "lab", "--overlap", "0")
    assert "not shown again" in ended.stderr
    last, *before = opened(data, webhook(data, made["workspace_id"]))
    assert before == [rotated["secret"], made["webhook_secret"]]
    assert last in ended.stdout
    assert run(data, "rotate-secret", "--workspace", "lab").exit_code == 2
    noted = [entry for entry in audited(data) if entry["action"] == "webhook.rotate_secret"]
    assert len(noted) == 3
    assert last not in json.dumps(noted)


class Receiver(BaseHTTPRequestHandler):
    """Takes one kind of answer from its server, and keeps what came."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.came.append((dict(self.headers), body))  # type: ignore[attr-defined]
        self.send_response(self.server.answers)  # type: ignore[attr-defined]
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (the base's name)
        pass


@contextmanager
def receiving(code: int) -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.came, server.answers = [], code  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("code", "exit_code"), [(200, 0), (503, 1)])
def test_a_receiver_is_tried(data: Path, monkeypatch: pytest.MonkeyPatch, code: int, exit_code: int) -> None:
    monkeypatch.setenv("TOLLGATE_ALLOW_PRIVATE_RECEIVERS", "true")
    made = create(data)
    nowhere = run(data, "test-webhook", "--workspace", "lab")
    assert (nowhere.exit_code, "no URL is set" in nowhere.stderr) == (1, True)
    with receiving(code) as server:
        run(data, "set-webhook", "--workspace", "lab", "--url", f"http://127.0.0.1:{server.server_port}/")
        result = run(data, "test-webhook", "--workspace", "lab", "--json")
        ((headers, body),) = server.came  # type: ignore[attr-defined]
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["delivered"], answer["status_code"]) == (exit_code, code == 200, code)
    signing.verify(headers, body, [made["webhook_secret"]], clock.steady()())
    assert json.loads(body)["data"]["events"][0]["requestMetadata"] == {"test": "true"}


def test_receivers_are_public_unless_the_operator_says_otherwise(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(data)
    arguments = ("set-webhook", "--workspace", "lab", "--url", "http://127.0.0.1:9/hook")
    refused = run(data, *arguments)
    assert refused.exit_code == 1
    assert "url" in refused.stderr
    monkeypatch.setenv("TOLLGATE_ALLOW_PRIVATE_RECEIVERS", "true")
    assert run(data, *arguments).exit_code == 0


def test_suspend_and_resume(data: Path) -> None:
    create(data)
    for command, state in (("suspend", "suspended"), ("suspend", "suspended"), ("resume", "active")):
        result = run(data, command, "--workspace", "lab", "--json")
        assert json.loads(result.stdout)["state"] == state
    with databases.sqlite(data / "tollgate.db") as database:
        version, _ = database.read_now(snapshot.snapshot)
    assert version == 4  # workspace, webhook, suspended once, resumed


@pytest.mark.parametrize(
    "arguments", [["create"], ["set-webhook", "--workspace", "lab"], ["nothing"], ["create", "--name"]]
)
def test_wrong_usage_is_exit_code_2(data: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.workspace, arguments)
    assert result.exit_code == 2
    assert not data.exists()


def test_a_directory_that_is_not_there_is_named_and_not_made(data: Path) -> None:
    result = run(data, "suspend", "--workspace", "lab")
    assert result.exit_code == 1
    assert f"there is no Tollgate data in {data}" in result.stderr
    assert not data.exists()


def test_an_unknown_workspace_is_named(data: Path) -> None:
    create(data)
    result = run(data, "suspend", "--workspace", "nobody")
    assert result.exit_code == 1
    assert "'nobody'" in result.stderr


def test_a_data_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file" / "data", "create", "--name", "lab", "--org-prefix", "acme")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_no_database_is_one_line(data: Path) -> None:
    data.mkdir(parents=True)
    (data / "tollgate.db").write_bytes(b"no database at all" * 100)
    result = run(data, "create", "--name", "lab", "--org-prefix", "acme")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "not a database" in result.stderr


def caller(data: Path, key: str, method: str = "POST") -> auth.Caller:
    with databases.sqlite(data / "tollgate.db") as database:
        return database.read_now(
            lambda connection: auth.identify(
                SqlCredentials(connection), f"Api-Key {key}", method, "api.gateway.example"
            )
        )


def test_management_keys_are_issued_with_a_scope_and_revoked(data: Path) -> None:
    made = create(data)
    issued = {
        scope: json.loads(run(data, "issue-key", "--workspace", "lab", "--scope", scope, "--json").stdout)
        for scope in ("read", "manage")
    }
    for key in issued.values():
        assert set(key) == {"api_key", "prefix"}
        assert key["api_key"].startswith(key["prefix"])
    assert caller(data, issued["manage"]["api_key"]).workspace_id == made["workspace_id"]
    assert caller(data, issued["read"]["api_key"], "GET").workspace_id == made["workspace_id"]
    with pytest.raises(ForbiddenError):
        caller(data, issued["read"]["api_key"])
    revoke = ("revoke-key", "--workspace", "lab", "--prefix", issued["manage"]["prefix"])
    assert run(data, *revoke).exit_code == 0
    with pytest.raises(UnauthorizedError):
        caller(data, issued["manage"]["api_key"])
    assert caller(data, made["api_key"]).workspace_id == made["workspace_id"]
    assert run(data, *revoke).exit_code == 1
    assert run(data, "issue-key", "--workspace", "lab", "--scope", "write").exit_code == 2


def test_the_human_form_of_a_key_says_that_it_is_shown_once(data: Path) -> None:
    create(data)
    result = run(data, "issue-key", "--workspace", "lab", "--scope", "read")
    assert "not shown again" in result.stderr
    assert result.stdout.count("tgm_") == 2  # the key and its prefix


def test_one_more_prefix(data: Path) -> None:
    made = create(data)
    arguments = ("add-prefix", "--workspace", "lab", "--org-prefix")
    result = run(data, *arguments, "more", "--json")
    assert json.loads(result.stdout) == {"workspace_id": made["workspace_id"], "org_prefix": "more"}
    taken = run(data, *arguments, "MORE")
    assert (taken.exit_code, taken.stderr.count("\n")) == (1, 1)
    assert "MORE" in taken.stderr


def test_a_public_key_is_read_from_a_file(data: Path, tmp_path: Path) -> None:
    made = create(data)
    good, bad = tmp_path / "key.pem", tmp_path / "bad.pem"
    good.write_bytes(PEM)
    bad.write_bytes(b"-----BEGIN PRIVATE KEY-----\nnot shown\n")
    arguments = ("set-public-key", "--workspace", "lab", "--file")
    assert run(data, *arguments, str(good)).exit_code == 0
    refused = run(data, *arguments, str(bad))
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "not shown" not in refused.output
    assert run(data, *arguments, str(tmp_path / "nothing.pem")).exit_code == 2
    with databases.sqlite(data / "tollgate.db") as database:
        kept = database.read_now(lambda connection: SqlWorkspaces(connection).public_key(made["workspace_id"]))
    assert kept == credentials.public_key(PEM)


def audited(data: Path, *arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(audit_cli.audit, ["--data", str(data), "--json", *arguments])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_audit_log_names_every_command(data: Path) -> None:
    made = create(data)
    run(data, "create", "--name", "other", "--org-prefix", "globex")
    run(data, "add-prefix", "--workspace", "lab", "--org-prefix", "more")
    run(data, "set-webhook", "--workspace", "lab", "--url", "https://hooks.example/in")
    run(data, "suspend", "--workspace", "lab")
    issued = json.loads(run(data, "issue-key", "--workspace", "lab", "--scope", "read", "--json").stdout)
    entries = audited(data, "--workspace", "lab")
    assert [entry["action"] for entry in entries] == [
        "workspace.create",
        "workspace.add_prefix",
        "webhook.update",
        "workspace.suspend",
        "management_key.create",
    ]
    assert {(entry["actor"], entry["workspace_id"]) for entry in entries} == {("operator", made["workspace_id"])}
    assert entries[2]["before"] == {"url": None, "enabled": True, "usage_alerts": []}
    assert entries[3]["after"]["state"] == "suspended"
    assert len(audited(data)) == 6
    assert [entry["id"] for entry in audited(data, "--limit", "1")] == [entries[-1]["id"]]
    for secret in (made["api_key"], made["webhook_secret"], issued["api_key"]):
        assert secret not in json.dumps(entries)


def test_the_audit_log_for_people_says_what_changed(data: Path) -> None:
    create(data)
    run(data, "suspend", "--workspace", "lab")
    result = CliRunner().invoke(audit_cli.audit, ["--data", str(data), "--limit", "1"])
    head, change = result.stdout.splitlines()
    assert "operator" in head
    assert "workspace.suspend" in head
    assert change.strip() == 'state: "active" -> "suspended"'
    unknown = CliRunner().invoke(audit_cli.audit, ["--data", str(data), "--workspace", "nobody"])
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (1, 1)
