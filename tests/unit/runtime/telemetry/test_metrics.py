"""What is read at the scrape becomes Prometheus text, and nothing is global."""

import asyncio
from datetime import UTC, datetime, timedelta

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.config.lag import Propagation
from runtime.telemetry.metrics import Histogram, Telemetry
from schemas.config import ConfigChange, ConfigKind
from tests.support import scraping
from tests.support.scraping import Samples

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def scrape(telemetry: Telemetry) -> str:
    return (await telemetry.text()).decode()


async def shown(telemetry: Telemetry) -> Samples:
    return scraping.samples(await scrape(telemetry))


async def test_each_scrape_reads_anew() -> None:
    telemetry, facts = Telemetry(), {"tall": 1.0, "wide": 2.0}
    telemetry.counter("things_total", "Things.", lambda: facts, "shape")
    telemetry.gauge("height", "Height.", lambda: facts["tall"])
    telemetry.gauge("is_tall", "Whether.", lambda: facts["tall"] > 5)
    assert (await shown(telemetry)).items() >= {
        ("things_total", "wide"): 2,
        ("height", ""): 1,
        ("is_tall", ""): 0,
    }.items()
    facts["tall"] = 7
    assert (await shown(telemetry)).items() >= {
        ("things_total", "tall"): 7,
        ("height", ""): 7,
        ("is_tall", ""): 1,
    }.items()


async def test_a_fact_may_have_to_be_waited_for() -> None:
    async def read() -> float:
        await asyncio.sleep(0)
        return 3.5

    telemetry = Telemetry()
    telemetry.gauge("age_seconds", "Age.", read)
    assert (await shown(telemetry))["age_seconds", ""] == 3.5


async def test_types_and_helps_are_written() -> None:
    telemetry = Telemetry()
    telemetry.counter("things_total", "Things, in plain words.", dict, "shape")
    families = {family.name: family for family in text_string_to_metric_families(await scrape(telemetry))}
    things = families["things"]
    assert (things.type, things.documentation, things.samples) == ("counter", "Things, in plain words.", [])


async def test_a_value_at_a_bound_lies_below_it_and_buckets_add_up() -> None:
    telemetry, histogram = Telemetry(), Histogram([0.5, 1])
    telemetry.histogram("wait_seconds", "Waits.", histogram)
    for value in (0.5, 0.75, 1, 3):
        histogram.observe(value)
    found = {name: number for name, number in (await shown(telemetry)).items() if name[0].startswith("wait")}
    assert found == {
        ("wait_seconds_bucket", "0.5"): 1,
        ("wait_seconds_bucket", "1.0"): 3,
        ("wait_seconds_bucket", "+Inf"): 4,
        ("wait_seconds_count", ""): 4,
        ("wait_seconds_sum", ""): 5.25,
    }


async def test_a_reader_that_fails_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    telemetry, sizes = Telemetry(), {"wide": 2.0}
    telemetry.gauge("height", "Height.", lambda: sizes["tall"])
    telemetry.gauge("width", "Width.", lambda: sizes["wide"])
    for _ in range(2):
        found = await shown(telemetry)
        assert found["width", ""] == 2
        assert ("height", "") not in found
    assert caplog.messages == ["height is left out of /metrics: its reader failed"]
    sizes["tall"] = 1
    assert (await shown(telemetry))["height", ""] == 1
    del sizes["tall"]
    await shown(telemetry)
    assert len(caplog.messages) == 2


def test_a_name_is_shown_once() -> None:
    telemetry = Telemetry()
    telemetry.gauge("height", "Height.", lambda: 1)
    with pytest.raises(ValueError, match="height is shown twice"):
        telemetry.histogram("height", "Height.", Histogram([1]))


async def test_processes_in_one_interpreter_share_nothing() -> None:
    before = prometheus_client.generate_latest()
    one, other = Telemetry(), Telemetry()
    one.gauge("height", "Height.", lambda: 1)
    other.gauge("height", "Height.", lambda: 2)
    assert [(await shown(each))["height", ""] for each in (one, other)] == [1, 2]
    assert scraping.names(before.decode()) == scraping.names(prometheus_client.generate_latest().decode())
    assert "height" not in prometheus_client.generate_latest().decode()


def change(at: datetime | None) -> ConfigChange:
    return ConfigChange(version=1, kind=ConfigKind.GROUP, id="g", record=None, at=at)


async def test_delays_are_from_the_commit_and_never_below_zero() -> None:
    telemetry, propagation = Telemetry(), Propagation(lambda: NOW)
    propagation.register_metrics(telemetry, lambda: 7)
    for ago_s in (0.2, 40, -5):  # the last: another machine's clock is ahead
        propagation.applied(change(NOW - timedelta(seconds=ago_s)))
    propagation.applied(change(None))
    found = await shown(telemetry)
    name = "tollgate_config_propagation_seconds"
    assert [found[f"{name}_bucket", bound] for bound in ("0.01", "0.25", "1.0", "60.0", "+Inf")] == [1, 2, 2, 3, 3]
    assert found[f"{name}_sum", ""] == pytest.approx(40.2)
    assert found["tollgate_config_version", ""] == 7
