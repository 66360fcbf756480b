"""`tollgate console link`: a link that the console takes, and whose token is kept nowhere."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.integration.tollgate.cli import test_workspace_shown as workspaces
from tollgate.cli import console as cli


def test_link_prints_an_address_of_the_console_and_keeps_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOLLGATE_MASTER_KEY", raising=False)
    monkeypatch.setenv("TOLLGATE_CONSOLE_URL", "https://console.example:8443")
    data = tmp_path / "data"
    workspaces.create(data)
    plain = CliRunner().invoke(cli.console, ["link", "--data", str(data)])
    assert plain.exit_code == 0, plain.output
    url = json.loads(CliRunner().invoke(cli.console, ["link", "--json", "--data", str(data)]).stdout)["url"]
    for one in (plain.stdout.strip(), url):
        begin, _, token = one.partition("?t=")
        assert begin == "https://console.example:8443/console/link"
        assert len(token) >= 43
        assert not [file for file in data.rglob("*") if file.is_file() and token.encode() in file.read_bytes()]
    assert plain.stdout.strip() != url
