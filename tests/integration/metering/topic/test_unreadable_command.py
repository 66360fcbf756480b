"""`tollgate unreadable list|retry`, as an operator calls it."""

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from metering.topic import unreadable
from runtime.kafka.writer import Kafka
from schemas.topics import USAGE_EVENTS
from tests.integration.metering.topic.scene import Scene, running, until
from tests.support import records
from tollgate.cli.main import tollgate


@pytest.fixture
def command(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TOLLGATE_KAFKA_BOOTSTRAP", scene.where.bootstrap)
    monkeypatch.setenv("TOLLGATE_KAFKA_TOPIC_PREFIX", scene.where.prefix)

    async def call(*words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, tollgate, ["unreadable", *words])

    return call


async def put_aside(scene: Scene) -> None:
    """Count one event, and have four records aside: two alike, one too large, one that could be counted by now."""
    await scene.write([(b"a", b"no JSON"), (b"a", b"no JSON"), (b"a", b"x" * 300_000)])
    await scene.put(scene.event(1))
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 4, run)
    mended = scene.event(2).model_dump_json().encode()
    source = type("Found", (), {"key": b"group-a", "value": mended, "headers": (("ce_id", b"2"),)})()
    source.partition, source.offset = 0, 77
    await scene.writer.write("usage.events.unreadable.v1", [unreadable.aside(source, "its day was gone")])


async def test_list_shows_each_record_with_its_reason_and_place(scene: Scene, command: Any) -> None:
    await put_aside(scene)
    shown = await command("list")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert len(lines) == 4
    assert shown.stderr == "4 unreadable record(s)\n"
    assert lines[0].startswith("--partition 0 --offset 0  ")
    assert 'usage.events.v1/0 at 0: "Invalid JSON' in lines[0]

    newest = await command("list", "--json", "--limit", "1")
    (one,) = [json.loads(line) for line in newest.stdout.splitlines()]
    assert (one["reason"], one["source_offset"], one["key"], one["cut"]) == ("its day was gone", 77, "group-a", False)
    assert json.loads(one["value"])["idempotencyKey"] == scene.event(2).idempotency_key


async def test_a_list_of_nothing_says_so_to_people(scene: Scene, command: Any) -> None:
    people, as_json = await command("list"), await command("list", "--json")
    assert (people.exit_code, people.stdout, people.stderr) == (0, "", "No unreadable records.\n")
    assert (as_json.exit_code, as_json.stdout, as_json.stderr) == (0, "", "")


async def test_retry_of_everything_sends_equal_records_once_and_may_be_repeated(scene: Scene, command: Any) -> None:
    await put_aside(scene)
    sent = await command("retry", "--all", "--json")
    assert json.loads(sent.stdout) == {"sent": 2, "skipped": 2}
    assert sent.stderr == ""
    back = [one for some in (await records.read(scene.where, USAGE_EVENTS)).values() for one in some][4:]
    assert {one.value[:7] for one in back} == {b"no JSON", scene.event(2).model_dump_json().encode()[:7]}
    assert [dict(one.headers) for one in back if one.key == b"group-a"] == [{"ce_id": b"2"}]

    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 6, run)
        assert (await command("retry", "--all")).exit_code == 0
        await until(lambda: scene.position() == 8, run)
    assert (scene.counted(), scene.requests()) == (2, 2)


async def test_retry_of_one_sends_that_one(scene: Scene, command: Any) -> None:
    await put_aside(scene)
    assert json.loads((await command("retry", "--partition", "0", "--offset", "3", "--json")).stdout)["sent"] == 1
    assert json.loads((await command("retry", "--partition", "0", "--offset", "2", "--json")).stdout)["skipped"] == 1
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 5, run)
    assert scene.counted() == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("retry",), "give either --all, or --partition and --offset"),
        (("retry", "--all", "--offset", "1"), "give either --all"),
        (("retry", "--partition", "1"), "give either --all"),
        (("retry", "--partition", "0", "--offset", "99"), "has no record at 0, 99"),
        (("list", "--limit", "0"), "--limit"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words(
    scene: Scene, command: Any, words: tuple[str, ...], said: str
) -> None:
    refused = await command(*words)
    assert refused.exit_code != 0
    assert said in refused.output
    assert "Traceback" not in refused.output


async def test_without_kafka_or_topics_the_reason_is_said(
    kafka: Kafka, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_KAFKA_TOPIC_PREFIX", f"{kafka.prefix}nothing.")
    missing = await command("list")
    assert (missing.exit_code, "run `tollgate migrate`" in missing.output) == (1, True)
    monkeypatch.delenv("TOLLGATE_KAFKA_BOOTSTRAP")
    unset = await command("list")
    assert (unset.exit_code, "TOLLGATE_KAFKA_BOOTSTRAP is not set" in unset.output) == (1, True)
