"""`GET /spool`: what is not published, to the token, at one moment (contract 4)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from pydantic import TypeAdapter

from proxy.topic import report as spool_report
from runtime.http import health
from schemas.spool import SpoolFigures
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import (
    PARTITIONS,
    TODAY,
    Limits,
    Topic,
    charged,
    publishing,
    running,
    until,
)
from tests.unit.proxy.kit import WORKSPACE

REPORT = TypeAdapter(list[SpoolFigures])
DAY = TODAY.date()


class Desk:
    """A spool with a publisher whose topic is away, and the ops port."""

    def __init__(self, folder: Path) -> None:
        self.topic = Topic()
        self.topic.away |= set(range(PARTITIONS))
        self.sink, _ = topics.opened(folder)
        self.publisher = publishing(self.sink, self.topic, limits=Limits(passed=True))
        app = health.ops_app({}, spool_report.handlers(self.publisher))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(cast(Any, app)), base_url="http://ops")

    async def report(self, *upto: str) -> list[SpoolFigures]:
        answer = await self.client.get("/spool", params={"upto": list(upto)})
        assert answer.status_code == 200, answer.text
        return REPORT.validate_json(answer.content)


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    topics.be_quick(monkeypatch)
    made = Desk(tmp_path)
    async with made.client, running(made.publisher, made.sink):
        yield made
    made.sink.close()


def figures(desk: Desk, workspace_id: str | None, day: date | None, *counts: int) -> SpoolFigures:
    requests, input_tokens, output_tokens, acknowledged_through, last_sequence = counts
    return SpoolFigures(
        instance=desk.sink.instance,
        workspace_id=workspace_id,
        day=day,
        requests=requests,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        acknowledged_through=acknowledged_through,
        last_sequence=last_sequence,
    )


async def test_an_instance_with_nothing_unpublished_reports_zero(desk: Desk) -> None:
    assert await desk.report() == [figures(desk, None, None, 0, 0, 0, 0, 0)]
    desk.topic.away.clear()
    await topics.spooled(desk.sink, range(3))
    assert await desk.publisher.drain(10)
    assert await desk.report() == [figures(desk, None, None, 0, 0, 0, 3, 3)]


async def test_figures_are_per_workspace_and_day(desk: Desk) -> None:
    yesterday = TODAY - timedelta(days=1)
    await topics.spooled(desk.sink, [1, 2], yesterday)
    await topics.spooled(desk.sink, [10, 20, 30])
    await desk.sink.put(charged(5).model_copy(update={"workspace_id": "another"}))
    assert await desk.report() == [
        figures(desk, "another", DAY, 1, 5, 2, 0, 6),
        figures(desk, WORKSPACE, yesterday.date(), 2, 3, 4, 0, 6),
        figures(desk, WORKSPACE, DAY, 3, 60, 6, 0, 6),
    ]


async def test_figures_end_at_the_sequence_that_is_asked_for(desk: Desk) -> None:
    await topics.spooled(desk.sink, [10, 20, 30])
    name = desk.sink.instance
    assert await desk.report(f"{name}:2", "unknown:1") == [figures(desk, WORKSPACE, DAY, 2, 30, 4, 0, 3)]
    assert await desk.report(f"{name}:99") == [figures(desk, WORKSPACE, DAY, 3, 60, 6, 0, 3)]
    assert await desk.report(f"{name}:0") == [figures(desk, None, None, 0, 0, 0, 0, 3)]


@pytest.mark.parametrize("upto", ["", "x", ":1", "x:", "x:-1", "x:1.5", "x:" + "9" * 30, "x:\u0661"])
async def test_a_mark_that_is_none_is_400(desk: Desk, upto: str) -> None:
    answer = await desk.client.get("/spool", params={"upto": upto})
    assert answer.status_code == 400
    assert "upto must be instance:sequence" in answer.json()["detail"]


async def test_drained_instances_report_zero(tmp_path: Path) -> None:
    (tmp_path / "drained").write_text("GONE 41\n")
    sink, _ = topics.opened(tmp_path)
    gone, own = await spool_report.unpublished(publishing(sink, Topic()), {})
    assert (gone.instance, gone.requests, gone.acknowledged_through, gone.last_sequence) == ("GONE", 0, 41, 41)
    assert own.instance == sink.instance
    sink.close()


async def test_the_report_is_of_one_moment_while_events_come_and_go(desk: Desk) -> None:
    """Every event is either at or below the mark, and so in the topic by now, or in the figures."""
    desk.topic.away.clear()
    total = 2000

    async def load() -> None:
        for number in range(0, total, 20):
            await topics.spooled(desk.sink, range(number, number + 20))
            await asyncio.sleep(0)

    loading = asyncio.create_task(load())
    reports = 0
    while not loading.done():
        (row,) = await desk.report()
        in_topic = set(desk.topic.sequences)
        assert set(range(1, row.acknowledged_through + 1)) <= in_topic
        assert row.requests == row.last_sequence - row.acknowledged_through
        assert row.input_tokens == sum(range(row.acknowledged_through, row.last_sequence)), "event n has n - 1 tokens"
        reports += 1
        await asyncio.sleep(0)  # nothing above need ever leave the loop's turn
    await loading
    assert reports > 3
    await until(desk.sink.file.is_empty)
