"""`tollgate correct` as it is typed, without a server and beside one."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError
from ulid import ULID

from control.store import corrections
from metering.store import transaction
from runtime import clock
from runtime.database.engines import Database
from schemas.usage import UsageEvent
from tests.faults import scene as scenes
from tests.integration.tollgate.cli.correct.conftest import EVENT
from tests.support import engines, processes
from tests.support.engines import Place
from tests.unit.metering.factories import NOON, HandClock, batch
from tollgate.cli import correct as cli


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return engines.made("sqlite", request, tmp_path)


def run(data: Path, *words: str, key: str = EVENT.idempotency_key) -> Result:
    return CliRunner().invoke(cli.correct, ["--event", key, "--data", str(data), *words])


def test_it_works_before_the_server_starts(database: Database, data: Path) -> None:
    result = run(data, "--input", "-3", "--output", "+2", "--reason", "counted twice", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert (printed["kind"], printed["reason"]) == ("correction", "counted twice")
    assert printed["corrects"] == EVENT.idempotency_key
    assert printed["tokens"] == {"inputTokens": -3, "outputTokens": 2, "cachedInputTokens": 0}
    (kept,) = database.read_now(lambda connection: corrections.read(connection, 1, 10))
    assert kept == UsageEvent.model_validate(printed)


def test_the_human_form_says_what_was_corrected(database: Database, data: Path) -> None:
    result = run(data, "--output", "1", "--reason", "one was missing")
    assert f"corrects {EVENT.idempotency_key} by +0 input and +1 output tokens" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reason", "x"], "must not be 0"),
        (["--reason", "x", "--input", "-11"], "would make it negative"),
        (["--reason", "", "--input", "1"], "reason"),
        (["--reason", "x", "--input", "99999999999999999999"], "input: -1000000000 to"),
    ],
)
def test_a_refusal_is_one_line(database: Database, data: Path, words: list[str], said: str) -> None:
    result = run(data, *words)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


LAST_DAY = str(ULID.from_datetime(datetime(9999, 12, 31, tzinfo=UTC)))[:10] + "0" * 16


@pytest.mark.parametrize("key", ["nothing", "", "\udcff", EVENT.idempotency_key.lower(), "0" * 26, LAST_DAY])
def test_an_unknown_event_is_one_line(database: Database, data: Path, key: str) -> None:
    result = run(data, "--input", "1", "--reason", "x", key=key)
    assert result.exit_code == 1
    assert "the ledger has none with the key" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_correction_cannot_be_corrected(database: Database, data: Path) -> None:
    made = json.loads(run(data, "--input", "1", "--reason", "x", "--json").stdout)
    result = run(data, "--input", "1", "--reason", "x", key=made["idempotencyKey"])
    assert result.exit_code == 1


def test_a_second_run_with_the_key_of_the_first_corrects_nothing(database: Database, data: Path) -> None:
    words = ("--input", "-3", "--reason", "counted twice", "--json")
    first = run(data, *words)
    key = json.loads(first.stdout)["idempotencyKey"]
    assert f"repeat it with --key {key}" in first.stderr
    again = run(data, *words, "--key", key)
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert len(database.read_now(lambda connection: corrections.read(connection, 1, 10))) == 1

    other = run(data, "--input", "-2", "--reason", "counted twice", "--key", key)
    assert (other.exit_code, other.stderr.count("\n")) == (1, 1)
    assert "is that of another correction" in other.stderr


def test_the_key_is_told_before_a_commit_whose_outcome_stays_open(
    database: Database, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--input", "-3", "--reason", "counted twice")

    def lost(opened: Database, work: Callable[[Connection], Any], whole: Any = Database.write_now) -> Any:
        whole(opened, work)
        raise OperationalError("COMMIT", None, Exception("the server closed the connection"))

    with monkeypatch.context() as broken:
        broken.setattr(Database, "write_now", lost)
        result = run(data, *words)
    assert result.exit_code == 1
    told = re.search(r"--key (\w{26})", result.stderr)
    assert told is not None
    assert run(data, *words, "--key", told[1]).exit_code == 0
    (kept,) = database.read_now(lambda connection: corrections.read(connection, 1, 10))
    assert kept.idempotency_key == told[1]


def test_beside_postgresql_it_goes_by_the_servers_clock(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = engines.made("postgresql", request, tmp_path)
    monkeypatch.setenv("TOLLGATE_DATABASE_URL", request.getfixturevalue("postgres_with_days_url"))
    monkeypatch.setattr(clock, "present", lambda: NOON)
    with place.open() as opened:
        opened.write_now(lambda connection: transaction.apply(connection, batch([EVENT]), HandClock()))
        result = run(tmp_path, "--input", "-3", "--reason", "counted twice")
        assert result.exit_code == 0, result.output
        (made,) = opened.read_now(lambda connection: corrections.read(connection, 1, 10))
        server = opened.read_now(lambda connection: connection.execute(select(func.now())).scalar_one())
    assert timedelta(0) <= server - made.timestamp < timedelta(minutes=1)


@pytest.mark.slow
def test_beside_a_server_it_is_counted_and_delivered(tmp_path: Path) -> None:
    with scenes.playing(tmp_path, "--tokens", "8") as scene:
        scene.deliver_to(scene.receive())
        scene.start()
        scene.onboard()
        key = scene.customer("customer", usage_limits=[{"type": "TOKEN", "unit": "DAY", "threshold": 1000}])
        assert scene.call(key).status_code == 200
        (event,) = scenes.until(scene.events, "the event")
        words = ("correct", "--event", event["idempotency_key"], "--output", "-5", "--reason", "miscounted")
        made = processes.answer(*words, "--data", str(scene.data))
        brought = scenes.until(lambda: scene.received().get(made["idempotencyKey"]), "its delivery", 5)
        assert len(brought) == 1
        (total,) = scene.rows("SELECT * FROM limit_daily")
        assert (total["requests"], total["tokens"]) == (1, event["input_tokens"] + 8)
        code, report = scene.reconcile("--upstream", str(scene.account))
        (day,) = report["days"]
        assert (code, day["ledger"]["requests"], day["ledger"]["corrections"]) == (0, 1, 1)
        assert (day["daily"]["corrected_output_tokens"], report["upstream"]["agreeing"]) == (-5, 1)
        scene.kill()
        scene.start()
        assert scene.reconcile()[0] == 0
        assert len(scene.events()) == 2
        scene.stop()
