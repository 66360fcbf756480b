"""No second master key gets in, and a lost one is missed rather than replaced."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.flow import workspaces
from control.store import units
from runtime.database import engines
from runtime.vault import Vault
from tollgate.cli.main import tollgate

OTHER_KEY = base64.b64encode(bytes([2] * 32)).decode()
OTHERS = {"TOLLGATE_MASTER_KEY": OTHER_KEY}
REFUSED = "this is not the master key that sealed the secrets of 1 of"


@pytest.fixture(autouse=True)
def _with_a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOLLGATE_MASTER_KEY", raising=False)
    assert create("lab").exit_code == 0


def run(*words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(tollgate, words, env=env)


def create(name: str, env: dict[str, str] | None = None) -> Result:
    return run("workspace", "create", "--name", name, "--org-prefix", name, env=env)


def refused(ended: Result, why: str) -> bool:
    return ended.exit_code == 1 and ended.stderr.count("\n") == 1 and why in ended.stderr


def test_nothing_is_sealed_with_another_key() -> None:
    before = Path("data/tollgate.db").read_bytes()
    assert refused(create("second", OTHERS), REFUSED)
    rotate = ("workspace", "rotate-secret", "--workspace", "lab", "--overlap")
    for overlap in ("0", "60"):
        assert refused(run(*rotate, overlap, env=OTHERS), REFUSED)
    assert Path("data/tollgate.db").read_bytes() == before
    assert create("second").exit_code == run(*rotate, "60").exit_code == 0


def test_a_test_delivery_with_another_key_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_ALLOW_PRIVATE_RECEIVERS", "true")
    assert run("workspace", "set-webhook", "--workspace", "lab", "--url", "http://127.0.0.1:1/").exit_code == 0
    ended = run("workspace", "test-webhook", "--workspace", "lab", env=OTHERS)
    assert refused(ended, "could not be decrypted")


def sealed_with_another_key(name: str) -> None:
    """Onboard a lab as an earlier version did under another key."""
    now = datetime.now(UTC)
    with engines.sqlite(Path("data/tollgate.db")) as opened:
        opened.write_now(
            lambda connection: workspaces.create(
                units.over(connection, now),
                Vault(bytes([2] * 32)),
                name=name,
                org_prefix=name,
                operator_credential=False,
            )
        )


@pytest.mark.parametrize("order", [("second", "third"), ("a", "b")])
def test_a_workspace_of_another_key_is_found_wherever_it_stands(order: tuple[str, str]) -> None:
    sealed_with_another_key(order[0])
    third = create(order[1])
    assert refused(third, f"{REFUSED} 2 workspaces")
    (finding,) = [each for each in json.loads(run("doctor", "--json").stdout) if each["problems"]]
    assert finding["what"] == "master key"
    assert f"{REFUSED} 2 workspaces" in finding["problems"][0]
    assert refused(run("serve", "--port", "0", "--ops-port", "0"), f"{REFUSED} 2 workspaces")


def test_a_lost_key_is_named_and_not_replaced() -> None:
    kept = Path("data/master.key").rename("kept.key")
    for ended in (
        create("second"),
        run("workspace", "rotate-secret", "--workspace", "lab", "--overlap", "0"),
        run("serve", "--port", "0", "--ops-port", "0"),
    ):
        assert refused(ended, "data/master.key is missing; put it back")
    assert run("audit").exit_code == 0  # which needs no key
    assert not Path("data/master.key").exists()
    kept.rename("data/master.key")
    assert create("second").exit_code == 0


def test_a_key_file_that_is_none_is_one_line() -> None:
    Path("data/master.key").write_bytes(b"\xff\xfe no key")
    assert refused(create("second"), "the master key must be 32 bytes")


def test_where_nothing_is_sealed_a_new_key_may_come() -> None:
    assert run("migrate", "--data", "fresh").exit_code == 0
    Path("fresh/master.key").unlink()
    assert run("audit", "--data", "fresh").exit_code == 0
    assert not Path("fresh/master.key").exists()
    made = run("workspace", "create", "--name", "lab", "--org-prefix", "org", "--data", "fresh")
    assert made.exit_code == 0
    assert Path("fresh/master.key").stat().st_mode & 0o777 == 0o600
