"""`tollgate migrate` and `doctor`: what is missing is named, made, and then well."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runtime.kafka import Kafka
from tollgate.cli.main import tollgate

KEY, OTHER_KEY = (base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))


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


def test_an_embedded_directory_is_well_before_and_after_its_first_command() -> None:
    assert problems({}) == {}
    run({}, "migrate")
    run({}, "workspace", "create", "--name", "lab", "--org-prefix", "org")
    assert problems({}) == {}
    assert list(problems({"TOLLGATE_MASTER_KEY": OTHER_KEY})) == ["master key"]
    (unknown,) = problems({"TOLLGATE_PROT": "1"})["environment"]
    assert "the nearest name is TOLLGATE_PORT" in unknown


def test_what_an_installation_misses_is_named_and_migrate_makes_it(apart: dict[str, str]) -> None:
    missing = problems(apart)
    assert missing["database"] == ["the database has no schema yet; run 'tollgate migrate'"]
    assert len(missing["Kafka"]) == 5
    assert all("run `tollgate migrate`" in line for line in missing["Kafka"])
    for _ in range(2):  # safe to repeat
        assert "5 topics are there" in run(apart, "migrate")
    assert problems(apart) == {}
    run(apart, "workspace", "create", "--name", "lab", "--org-prefix", "org")
    assert problems(apart) == {}
    assert list(problems(apart | {"TOLLGATE_MASTER_KEY": OTHER_KEY})) == ["master key"]


def test_other_partitions_are_named_and_not_changed(apart: dict[str, str]) -> None:
    run(apart, "migrate")
    wider = apart | {"TOLLGATE_KAFKA_PARTITIONS": "3"}
    assert "usage.events.v1 has 2 partitions, 3 wanted" in run(wider, "migrate", code=1)
    assert any("2 partitions, 3 wanted" in line for line in problems(wider)["Kafka"])
    assert problems(apart) == {}


def test_a_server_with_too_few_locks_for_the_ledgers_days_is_named(apart: dict[str, str]) -> None:
    many = apart | {"TOLLGATE_LEDGER_DAYS": "10000"}
    said = r"max_locks_per_transaction is \d+; a ledger of 10000 days needs \d+ in postgresql.conf"
    for environment, warned in ((many, rf"Warning: {said}\n"), (apart, "")):
        ended = CliRunner().invoke(tollgate, ["migrate", "--json"], env=environment)
        assert ended.exit_code == 0
        assert re.fullmatch(warned, ended.stderr)
        assert len(json.loads(ended.stdout)["topics"]) == 5
    found = problems(many)
    assert list(found) == ["database"]
    (line,) = found["database"]
    assert re.fullmatch(said, line)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"TOLLGATE_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/none"}, "database"),
        ({"TOLLGATE_DATABASE_URL": "mysql://u:hush@127.0.0.1/none"}, "database"),
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
    said = run(apart | changed, "migrate", code=1)
    assert said.count("\n") == 1
    assert "hush" not in said
