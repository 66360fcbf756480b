"""`tollgate migrate` and `doctor`: what is missing is named, made, and then well."""

import asyncio
import base64
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from control.core.records import StoredEndpoint
from control.store.endpoints import SqlEndpoints
from runtime import ids, settings
from runtime.clock import steady
from runtime.config import records as config_records
from runtime.kafka.writer import Kafka, Writer
from schemas.api import Region
from schemas.config import EndpointRecord
from schemas.targets import Provider, Target
from schemas.topics import GATEWAY_CONFIG
from tollgate import installation
from tollgate.cli.main import tollgate

URLS = "URLs of endpoints and webhooks"
KEY, OTHER_KEY = (base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))

TOPICS = 8
"""Those of an installation."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def apart(postgres_url: str, kafka: Kafka) -> dict[str, str]:
    """The environment of an installation that nobody has migrated yet."""
    return {
        "TOLLGATE_DATABASE_URL": postgres_url,
        "TOLLGATE_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "TOLLGATE_KAFKA_TOPIC_PREFIX": kafka.prefix,
        "TOLLGATE_KAFKA_PARTITIONS": "2",
        "TOLLGATE_KAFKA_REPLICATION": "1",
        "TOLLGATE_KAFKA_MIN_INSYNC_REPLICAS": "1",
        "TOLLGATE_MASTER_KEY": KEY,
        "TOLLGATE_LEDGER_DAYS": "100",  # any server has locks enough for these
    }


def run(environment: dict[str, str], *words: str, code: int = 0) -> str:
    ended = CliRunner().invoke(tollgate, words, env=environment)
    assert ended.exit_code == code, ended.output
    return ended.output


def problems(environment: dict[str, str]) -> dict[str, list[str]]:
    ended = CliRunner().invoke(tollgate, ["doctor", "--json"], env=environment)
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    wrong = {finding["what"]: finding["problems"] for finding in found if finding["problems"]}
    assert ended.exit_code == (1 if wrong else 0)
    return wrong


def on_disk() -> dict[str, tuple[int, bytes]]:
    """Return every file below the working directory: when it was changed last, and what it holds."""
    files = sorted(path for path in Path().rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_an_embedded_directory_is_well_after_its_first_command(tmp_path: Path) -> None:
    (missing,) = problems({})["data directory"]
    assert f"there is no {tmp_path / 'data'}" in missing
    assert not list(tmp_path.iterdir())
    Path("data").mkdir()
    (missing,) = problems({})["database"]
    assert "`tollgate serve` and `tollgate workspace create` make it" in missing
    assert not on_disk()
    run({}, "migrate")
    run({}, "workspace", "create", "--name", "lab", "--org-prefix", "org")
    assert problems({}) == {}
    assert list(problems({"TOLLGATE_MASTER_KEY": OTHER_KEY})) == ["master key"]
    (unknown,) = problems({"TOLLGATE_PROT": "1"})["settings"]
    assert "the nearest name is TOLLGATE_PORT" in unknown


def test_by_how_much_the_ledgers_clock_is_ahead() -> None:
    run({}, "workspace", "create", "--name", "lab", "--org-prefix", "org")
    with closing(sqlite3.connect("data/tollgate.db")) as connection:
        tomorrow = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1, minutes=1)
        place = "INSERT INTO metering_position (topic, partition, next_offset, recorded_at) VALUES ('spool/a', 0, 1, ?)"
        connection.execute(place, (tomorrow.isoformat(" "),))
        connection.commit()
    (ahead,) = problems({})["database"]
    assert ahead.startswith("the ledger's clock is 1 day, 0:0")


@pytest.mark.parametrize("killed", [False, True])
def test_it_changes_nothing(killed: bool) -> None:
    run({}, "workspace", "create", "--name", "lab", "--org-prefix", "org")
    path = Path("data/tollgate.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE schema_finished SET revision = '9999'")
        connection.commit()
        if killed:  # it leaves its journal behind
            (path.parent / "copy").mkdir()
            for name in ("tollgate.db", "tollgate.db-wal"):
                shutil.copy(path.with_name(name), path.parent / "copy" / name)
    if killed:
        for copied in (path.parent / "copy").iterdir():
            copied.replace(path.with_name(copied.name))
    Path("data/master.key").unlink()
    before = on_disk()
    found = problems({})
    assert "newer than this program" in found["database"][0]
    assert list(found) == ["database", "master key", URLS]
    after = on_disk()
    after.pop("data/tollgate.db-shm", None)  # an index of the journal, which whoever reads it makes anew
    assert after == before


def test_a_lost_master_key_is_named_and_not_made_anew() -> None:
    run({}, "workspace", "create", "--name", "lab", "--org-prefix", "org")
    Path("data/master.key").unlink()
    (lost,) = problems({})["master key"]
    assert "data/master.key is missing; put it back" in lost
    assert not Path("data/master.key").exists()


def store_private_urls() -> None:
    """Onboard a lab whose endpoint and webhook are on a private network, while that is allowed."""
    run({}, "migrate")
    made = json.loads(run({}, "workspace", "create", "--name", "lab", "--org-prefix", "org", "--json"))
    webhook = ("workspace", "set-webhook", "--workspace", "lab", "--url", "http://10.0.0.7:9000/?token=hush")
    run({"TOLLGATE_ALLOW_PRIVATE_RECEIVERS": "true"}, *webhook)
    target = Target(provider=Provider.OPENAI_COMPATIBLE, base_url="http://10.0.0.7/v1", target_model="m")
    now = steady()()
    record = EndpointRecord(
        id=ids.mint(), workspace_id=made["workspace_id"], slug="org/small", target=target, created_at=now
    )
    with installation.opened(settings.load()) as place:
        place.write(lambda view: SqlEndpoints(view).add(StoredEndpoint(record, Region.UNRESTRICTED, now)))


def test_stored_urls_that_are_refused_now_are_named() -> None:
    store_private_urls()
    endpoint, webhook = problems({})[URLS]
    assert "endpoint org/small of workspace lab is refused" in endpoint
    assert "TOLLGATE_ALLOW_PRIVATE_UPSTREAMS=true" in endpoint
    assert "webhook of workspace lab is refused" in webhook
    assert "hush" not in endpoint + webhook
    assert len(problems({"TOLLGATE_ALLOW_PRIVATE_RECEIVERS": "true"})[URLS]) == 1
    assert problems({"TOLLGATE_ALLOW_PRIVATE_RECEIVERS": "true", "TOLLGATE_ALLOW_PRIVATE_UPSTREAMS": "1"}) == {}
    run({}, "workspace", "set-webhook", "--workspace", "lab", "--disable")
    (endpoint,) = problems({})[URLS]  # what is disabled is not called


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run({}, "migrate")
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0)  # root may write everywhere
    (wrong,) = problems({})["data directory"]
    assert f"{tmp_path / 'data'} cannot be written by this user" in wrong


def test_settings_that_cannot_be_used_are_the_one_finding() -> None:
    (wrong,) = problems({"TOLLGATE_PORT": "none"})["settings"]
    assert "TOLLGATE_PORT" in wrong


def test_what_an_installation_misses_is_named_and_migrate_makes_it(apart: dict[str, str]) -> None:
    missing = problems(apart)
    assert missing["database"] == ["the database has no schema yet; run 'tollgate migrate'"]
    assert len(missing["master key"]) == 1
    assert sum(line.endswith(" is missing") for line in missing["Kafka"]) == TOPICS
    assert missing["Kafka"][TOPICS:] == ["To mend this, type:", "  tollgate migrate"]
    for _ in range(2):  # safe to repeat
        assert f"{TOPICS} topics are there" in run(apart, "migrate")
    assert problems(apart) == {}
    run(apart, "workspace", "create", "--name", "lab", "--org-prefix", "org")
    assert problems(apart) == {}
    assert list(problems(apart | {"TOLLGATE_MASTER_KEY": OTHER_KEY})) == ["master key"]


def tell(kafka: Kafka, *versions: int) -> None:
    """Write heartbeats as a relay would."""

    async def write() -> None:
        writer = Writer(kafka, "a relay")
        now = datetime.now(UTC)
        await writer.write(GATEWAY_CONFIG, [config_records.heartbeat(version, now) for version in versions])
        await writer.close()

    asyncio.run(write())


def test_a_restore_that_nobody_told_of_is_named_until_it_is_told(apart: dict[str, str], kafka: Kafka) -> None:
    run(apart, "migrate")
    run(apart, "workspace", "create", "--name", "lab", "--org-prefix", "org")
    tell(kafka, 2)
    assert problems(apart) == {}
    tell(kafka, 9, 2)
    (forgotten,) = problems(apart)["Kafka"]
    assert forgotten.startswith("gateway.config.v1 holds version 9, and the database is at 2: it was restored")
    assert "type `tollgate restore-done`" in forgotten
    run(apart, "restore-done")
    assert problems(apart) == {}


def test_other_partitions_are_named_and_changed_only_where_that_is_asked_for(apart: dict[str, str]) -> None:
    run(apart, "migrate")
    wider = apart | {"TOLLGATE_KAFKA_PARTITIONS": "3"}
    name = f"topic {apart['TOLLGATE_KAFKA_TOPIC_PREFIX']}usage.events.v1"
    assert f"\n  {name} (empty) has 2 partitions, 3 wanted\n" in run(wider, "migrate", code=1)
    assert f"{name} (empty) has 2 partitions, 3 wanted" in problems(wider)["Kafka"]
    assert problems(apart) == {}
    assert f"{name} was empty and is made anew\n" in run(wider, "migrate", "--recreate-empty")
    assert problems(wider) == {}
    recreated = run(wider, "migrate", "--recreate-empty", "--json")
    assert json.loads(recreated)["recreated"] == [], "what is as wanted is left alone"


def test_a_server_with_too_few_locks_for_the_ledgers_days_is_named(apart: dict[str, str]) -> None:
    many = apart | {"TOLLGATE_LEDGER_DAYS": "10000"}
    said = r"max_locks_per_transaction is \d+; a ledger of 10000 days needs \d+ in postgresql.conf"
    for environment, warned in ((many, rf"Warning: {said}\n"), (apart, "")):
        ended = CliRunner().invoke(tollgate, ["migrate", "--json"], env=environment)
        assert ended.exit_code == 0
        assert re.fullmatch(warned, ended.stderr)
        assert len(json.loads(ended.stdout)["topics"]) == TOPICS
    found = problems(many)
    assert list(found) == ["database"]
    (line,) = found["database"]
    assert re.fullmatch(said, line)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"TOLLGATE_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/none"}, "database"),
        ({"TOLLGATE_DATABASE_URL": "mysql://u:hush@127.0.0.1/none"}, "settings"),
        ({"TOLLGATE_DATABASE_URL": "postgresql://u:hu@hush@127.0.0.1/none"}, "database"),
        ({"TOLLGATE_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, "Kafka"),
    ],
)
def test_what_does_not_answer_is_one_line_without_a_password(
    apart: dict[str, str], changed: dict[str, str], what: str
) -> None:
    run(apart, "migrate")
    (line,) = problems(apart | changed)[what]
    assert "\n" not in line
    assert "hush" not in line
    ended = CliRunner().invoke(tollgate, ["migrate"], env=apart | changed)
    assert (ended.exit_code, ended.stderr.count("\n")) == (1, 1)
    assert "hush" not in ended.output
    assert "hush" not in run(apart | changed, "doctor", code=1)
