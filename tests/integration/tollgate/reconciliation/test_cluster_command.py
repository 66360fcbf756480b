"""`tollgate reconcile` as it is typed beside a cluster: a real proxy's port, Kafka and PostgreSQL."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runtime.kafka.writer import Kafka
from tests.integration.tollgate.reconciliation.cluster_desk import TODAY, ClusterDesk, events, row
from tollgate.cli import reconcile as cli


class OpsPort(ThreadingHTTPServer):
    """What answers in a proxy's place."""

    body = b"[]"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, OpsPort)
        self.send_response(200 if self.path == "/spool" else 404)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Be silent."""


@pytest.fixture
def proxy() -> Iterator[OpsPort]:
    with OpsPort() as port:
        serving = threading.Thread(target=port.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield port
        port.shutdown()
        serving.join()


@pytest.fixture(autouse=True)
def _environment(kafka: Kafka, postgres_migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLLGATE_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("TOLLGATE_KAFKA_TOPIC_PREFIX", kafka.prefix)
    monkeypatch.setenv("TOLLGATE_DATABASE_URL", postgres_migrated_url)
    monkeypatch.setenv("TOLLGATE_MASTER_KEY", base64.b64encode(bytes(32)).decode())


async def run(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli.reconcile, words)


def report(port: OpsPort, *rows: object) -> None:
    port.body = json.dumps([one.model_dump(mode="json") for one in rows]).encode()  # type: ignore[attr-defined]


async def test_it_prints_the_topic_beside_the_rest_and_exits_0(cluster: ClusterDesk, proxy: OpsPort) -> None:
    await cluster.pass_on(events(10))
    report(proxy, row("a", 10, 12, (2, 20, 10)))
    result = await run("--proxy", proxy.url)
    assert result.exit_code == 0, result.output
    lines = [[cell.strip() for cell in line.split("│")] for line in result.stdout.splitlines()]
    rows = {cells[1]: cells[2:-1] for cells in lines if len(cells) > 3}
    assert rows["unpublished in spools"] == ["2", "20", "10"]
    assert rows["topic"] == rows["ledger"] == rows["daily usage"] == rows["delivered"] == ["10", "100", "50"]
    assert {cells[0] for name, cells in rows.items() if name.startswith("difference")} == {"0"}
    assert "No difference." in result.stdout


async def test_a_difference_exits_1_and_an_unreadable_record_is_named(cluster: ClusterDesk, proxy: OpsPort) -> None:
    await cluster.pass_on(events(10))
    await cluster.write((b"group", b'{"idempotencyKey": "[bold]"}'))
    await cluster.count()
    await cluster.take()
    cluster.execute("DELETE FROM usage_event WHERE sequence = 10")
    report(proxy, row("a", 10, 10))
    result = await run("--proxy", proxy.url)
    assert result.exit_code == 1, result.output
    assert "lacks the sequences 10 to 10" in result.stdout
    assert "1 unreadable records in the topic" in result.stdout
    assert "requestId: Field required" in result.stdout
    found = json.loads((await run("--proxy", proxy.url, "--json")).stdout)
    (day,) = found["days"]
    assert (day["day"], day["topic"]["requests"], day["topic_difference"]["requests"]) == (str(TODAY), 10, 1)
    assert (found["agrees"], found["unreadable"]["count"]) == (False, 1)


async def test_days_past_the_topics_retention_are_expired(cluster: ClusterDesk) -> None:
    cluster.execute(
        "INSERT INTO usage_daily (day, lane, group_id, model_slug, workspace_id, external_entity_id, requests,"
        " input_tokens, output_tokens, cached_input_tokens, corrections, corrected_input_tokens,"
        " corrected_output_tokens, version, changed_at, updated_at)"
        " SELECT current_date - 40, 'l', 'g', 'a/b', 'ws', 'c', 0,0,0,0,0,0,0, 1, 1, now()"
    )
    result = await run("--from", "2020-01-01", "--json")
    assert result.exit_code == 0, result.output
    (day,) = json.loads(result.stdout)["days"]
    assert day["topic"] == day["topic_difference"] == day["deliveries"] == "expired"
    assert "expired" in (await run("--from", "2020-01-01")).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no proxy that was asked reports a, which the ledger knows of these days"),
        (["--ignore", "b"], "no proxy that was asked reports a,"),
        (["--proxy", "127.0.0.1:8081"], "--proxy: '127.0.0.1:8081' is no address of an ops port"),
        (["--proxy", "http://127.0.0.1:1"], "the proxy at http://127.0.0.1:1 does not answer"),
        (["--upstream", "nothing.jsonl", "--ignore", "a"], "nothing.jsonl: No such file"),
    ],
)
async def test_wrong_use_is_one_line_and_exit_code_2(cluster: ClusterDesk, words: list[str], said: str) -> None:
    await cluster.pass_on(events(1))
    result = await run(*words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


async def test_an_ignored_instance_is_no_reason_to_stop(cluster: ClusterDesk) -> None:
    await cluster.pass_on(events(1))
    assert (await run("--ignore", "a")).exit_code == 0


@pytest.mark.parametrize("missing", ["TOLLGATE_DATABASE_URL", "TOLLGATE_KAFKA_BOOTSTRAP"])
async def test_both_or_neither_must_be_set(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(missing)
    result = await run()
    assert result.exit_code == 2
    assert "are set together or not at all" in result.stderr


async def test_without_a_cluster_there_are_no_proxies_to_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP", "MASTER_KEY"):
        monkeypatch.delenv(f"TOLLGATE_{name}")
    for words in (["--proxy", "http://127.0.0.1:1"], ["--ignore", "a"]):
        result = await run(*words)
        assert result.exit_code == 2
        assert "are for TOLLGATE_KAFKA_BOOTSTRAP" in result.stderr
