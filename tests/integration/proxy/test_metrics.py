"""What a proxy shows of the feedback that it waits for, and of its publisher."""

from datetime import timedelta
from pathlib import Path

import pytest

from proxy.app import Proxy
from proxy.limits.counters import LanePart
from proxy.spool.writer import Spool
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from schemas.usage import UsageDraft
from tests.contracts.proxy.drafts import draft
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import PARTITIONS, Topic, publishing, running, spooled, until
from tests.support import scraping
from tests.support.scraping import Samples
from tests.unit.proxy import kit

LAG = ("tollgate_feedback_lag_seconds", "")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    topics.be_quick(monkeypatch)


async def shown(part: object) -> Samples:
    telemetry = Telemetry()
    part.register_metrics(telemetry)  # type: ignore[attr-defined]
    return scraping.samples((await telemetry.text()).decode())


def took(number: int, latency_ms: int | None) -> UsageDraft:
    return draft(number).model_copy(update={"latency_ms": latency_ms, "charged_groups": (kit.GROUP,)})


async def test_the_lag_is_the_age_of_the_oldest_row_since_its_request_ended(tmp_path: Path) -> None:
    now = draft().timestamp + timedelta(seconds=30)
    before = Proxy(Settings(), tmp_path, kit.VAULT, lambda: now)
    assert (await shown(before))[LAG] == 0
    for number, latency_ms in ((1, 10_000), (2, 25_000), (3, None)):
        await before.spool.put(took(number, latency_ms))
    await before.close()
    started = Proxy(Settings(), tmp_path, kit.VAULT, lambda: now)
    await started.recover(kit.none_is_counted)
    lags_s = [(await shown(started))[LAG]]
    for through in (1, 2, 3):
        part = LanePart(through, through + 1, through, 0)
        started.take_part(kit.GROUP, kit.SLUG, kit.NOW.date(), started.spool.file.lane, part)
        lags_s.append((await shown(started))[LAG])
    assert lags_s == [20, 5, 30, 0]
    found = await shown(started)
    assert (found["tollgate_decisions_total", ""], found["tollgate_spool_rows", ""]) == (3, 3)
    now += timedelta(days=1)
    await started.spool.put(took(4, None))
    assert (await shown(started))[LAG] == 0, "yesterday's rows hold no limit of today"
    await started.close()


async def test_what_waits_for_kafka_is_shown(sink: Spool, topic: Topic) -> None:
    made = publishing(sink, topic)
    await spooled(sink, range(5))
    assert (await shown(made))["tollgate_spool_unpublished_rows", ""] == 5
    topic.away |= set(range(PARTITIONS))
    async with running(made):
        await until(lambda: made.is_away)
        assert (await shown(made))["tollgate_kafka_away", ""] == 1
        topic.away.clear()
        assert await made.drain(10)
        found = await shown(made)
    assert (
        found.items()
        >= {
            ("tollgate_spool_unpublished_rows", ""): 0,
            ("tollgate_published_events_total", ""): 5,
            ("tollgate_kafka_away", ""): 0,
        }.items()
    )
