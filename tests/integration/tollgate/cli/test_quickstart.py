"""`tollgate quickstart` on a running server: what it prints works as it stands, and a refusal says what was made."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.faults.scene import until
from tests.support import processes

pytestmark = pytest.mark.slow


@dataclass
class Place:
    """A fresh server, a model's server and a receiver's port."""

    data: str
    url: str
    upstream: str
    folder: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("quick")
    data = str(folder / "data")
    serve = ("serve", "--data", data, "--port", "0", "--ops-port", "0")
    with (
        processes.server(folder / "mock.log", "mock-upstream", "--tokens", "8") as upstream,
        processes.server(folder / "serve.log", *serve, webhook_linger_ms="50") as gateway,
    ):
        yield Place(data, gateway.announced["url"], upstream.announced["base_url"], folder)


def test_the_printed_call_is_answered_and_billed(place: Place) -> None:
    words = ("--server", place.url, "--upstream", place.upstream, "--data", place.data)
    made = processes.answer("quickstart", *words, "--receiver", "http://127.0.0.1:9/hook")
    assert made["slug"] == "your-org/small"
    out = str(place.folder / "received.jsonl")
    with processes.server(
        place.folder / "listen.log", "webhook", "listen", "--secret", made["webhook_secret"], "--out", out
    ) as receiver:
        url = receiver.announced["url"]
        processes.answer("workspace", "set-webhook", "--workspace", "lab", "--url", url, "--data", place.data)
        said = subprocess.run(
            [*shlex.split(made["curl"]), "-s"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        assert json.loads(said)["model"] == "your-org/small"
        until(lambda: Path(out).exists() and Path(out).read_text(encoding="utf-8").count("acme") > 0, "the webhook")
    headers = {"Authorization": f"Api-Key {made['api_key']}"}
    groups = httpx.get(f"{place.url}/v1/gateway/groups", headers=headers).json()["items"]
    assert [(group["id"], group["metadata"]["external_entity_id"]) for group in groups] == [(made["group_id"], "acme")]


def test_what_the_server_refuses_is_said_and_what_was_made_is_shown(place: Place) -> None:
    words = ["quickstart", "--server", place.url, "--upstream", "nonsense", "--data", place.data, "--json"]
    ended = processes.run(*words, "--name", "second", "--org-prefix", "second", check=False)
    assert ended.returncode == 1
    made = json.loads(ended.stdout)
    assert set(made) == {"workspace_id", "api_key", "webhook_secret"}
    assert ended.stderr.splitlines()[-1].startswith("Error: POST /v1/gateway/endpoints was answered 400: ")


def test_a_server_that_is_not_there_is_said_before_anything_is_made(place: Place, tmp_path: Path) -> None:
    data = str(tmp_path / "none")
    words = ["quickstart", "--server", "http://127.0.0.1:9", "--upstream", place.upstream, "--data", data]
    ended = processes.run(*words, check=False)
    assert ended.returncode == 1
    assert "does not answer as a Tollgate server" in ended.stderr
    assert not Path(data).exists()
