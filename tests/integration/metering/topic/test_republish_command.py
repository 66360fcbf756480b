"""`tollgate republish`, as an operator calls it when a topic was lost."""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import pytest
from click.testing import CliRunner, Result

from control.core.records import StoredGroup
from control.store.groups import SqlGroups
from metering.store import day_partitions, transaction
from metering.thresholds import GroupThresholds
from runtime.kafka.writer import Kafka
from schemas.daily import DailyUsage
from schemas.decisions import Decision
from schemas.limits import LimitType, ModelConfig, UsageLimit, UsageLimitUnit
from schemas.topics import LIMITS_DECISIONS, USAGE_DAILY
from tests.integration.control import helpers
from tests.integration.metering.topic.scene import Scene, running, until
from tests.support import records
from tests.unit.metering.factories import batch, change, group
from tollgate.cli.main import tollgate

DAY = timedelta(days=1)

Told = TypeVar("Told", Decision, DailyUsage)


@pytest.fixture
async def lost(scene: Scene, postgres_migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The same installation whose two topics of totals were made anew."""
    anew = Kafka(scene.where.bootstrap, f"{scene.where.prefix}anew.")
    await records.make_topics(anew, partitions=3, only=(USAGE_DAILY, LIMITS_DECISIONS))
    monkeypatch.setenv("TOLLGATE_DATABASE_URL", postgres_migrated_url)
    monkeypatch.setenv("TOLLGATE_KAFKA_BOOTSTRAP", anew.bootstrap)
    monkeypatch.setenv("TOLLGATE_KAFKA_TOPIC_PREFIX", anew.prefix)
    return Scene(anew, scene.database)


async def call(first: datetime, last: datetime, *words: str) -> Result:
    days = ["--from", str(first.date()), "--to", str(last.date())]
    return await asyncio.to_thread(CliRunner().invoke, tollgate, ["republish", *days, *words])


async def test_a_topic_that_was_lost_gets_the_figures_of_its_days_with_their_versions(
    scene: Scene, lost: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "PAGE", 2)
    lab = helpers.onboard(scene.database, "lab", "org").workspace_id
    limited = group("group-2", requests=2).model_copy(update={"workspace_id": lab})
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "group-2", limited))
    scene.database.write_now(
        lambda connection: SqlGroups(connection).add(StoredGroup(limited, "limited", scene.now, scene.now))
    )
    days = [scene.now - 2 * DAY, scene.now - DAY, scene.now]
    numbers = range(1, 22)
    events = [scene.event(one, f"group-{one % 5}", timestamp=days[one % 3], tokens=(one, 0, 0)) for one in numbers]
    async with running(scene.worker(thresholds=thresholds)) as run:
        for some in (events[:11], events[11:]):
            await scene.put(*some)
            await until(lambda some=some: scene.counted() == some[-1].producer.sequence, run)  # type: ignore[misc]
    told = newest(await scene.daily())
    decided = newest(await scene.decisions())

    result = await call(days[1], days[2], "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    kept = {key: usage for key, usage in told.items() if usage.day != days[0].date()}
    assert json.loads(result.stdout)["daily"] == len(kept) == 10
    assert newest(await lost.daily()) == kept
    again = newest(await lost.decisions())
    assert {key: one.model_copy(update={"at": 0}) for key, one in again.items()} == {
        key: one.model_copy(update={"at": 0}) for key, one in decided.items() if one.period == str(scene.now.date())
    }
    assert {one.at for one in again.values()} == {21}, "as of now"
    assert [one.type for one in again["group-2", str(scene.now.date())].used_up] == [LimitType.REQUEST]

    earlier = await call(days[0], days[1])
    assert "10 record(s)" in earlier.stdout
    assert "0 of today" in earlier.stdout
    assert newest(await lost.daily()) == told


def newest(some: Sequence[Told]) -> dict[tuple[str, str], Told]:
    """Return what compaction leaves: each counter's last record."""
    return {(one.group_id, str(one.day) if isinstance(one, DailyUsage) else one.period): one for one in some}


async def test_the_month_of_a_limit_is_written_too_and_of_no_other_counter(
    scene: Scene, lost: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "PAGE", 2)
    lab = helpers.onboard(scene.database, "lab", "org").workspace_id
    month = UsageLimit(type=LimitType.TOKEN, unit=UsageLimitUnit.MONTH, threshold=30)
    limited = group("group-2").model_copy(
        update={"workspace_id": lab, "models": (ModelConfig(slug=scene.event(1).model_slug, usage_limits=(month,)),)}
    )
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "group-2", limited))
    scene.database.write_now(
        lambda connection: SqlGroups(connection).add(StoredGroup(limited, "limited", scene.now, scene.now))
    )
    events = [scene.event(one, f"group-{one % 3}", tokens=(10, 1, 0)) for one in range(1, 10)]
    async with running(scene.worker(thresholds=thresholds)) as run:
        await scene.put(*events)
        await until(lambda: scene.counted() == events[-1].producer.sequence, run)
    name = f"{scene.now:%Y-%m}"
    told = [one for one in await scene.decisions() if one.period == name]

    result = await call(scene.now, scene.now)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    again = [one for one in await lost.decisions() if one.period == name]
    assert newest(again) == newest(told)
    ((of, one),) = newest(again).items()
    assert (of, one.requests, one.tokens, [used.threshold for used in one.used_up]) == (("group-2", name), 3, 33, [30])


async def test_what_cannot_be_is_said_in_one_line(lost: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = await call(lost.now, lost.now - DAY)
    assert (wrong.exit_code, f"lies behind --to {(lost.now - DAY).date()}" in wrong.output) == (2, True)

    lost.database.write_now(lambda connection: day_partitions.ensure(connection, lost.now.date()))
    lost.database.write_now(lambda connection: transaction.apply(connection, batch([lost.event(1)]), lambda: lost.now))
    monkeypatch.setenv("TOLLGATE_KAFKA_TOPIC_PREFIX", "nobody.made.")
    away = await call(lost.now, lost.now)
    assert away.exit_code == 1
    assert "nobody.made.usage.daily.v1 is not there: run `tollgate migrate`" in away.stderr.splitlines()[-1]

    monkeypatch.delenv("TOLLGATE_KAFKA_BOOTSTRAP")
    without = await call(lost.now, lost.now)
    assert (without.exit_code, "without Kafka there are no topics" in without.output) == (1, True)
