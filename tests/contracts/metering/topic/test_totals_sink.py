"""What every `Publisher` does, the list and the topics alike."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import NamedTuple, TypeVar

import pytest

from metering import ports
from metering.core import decisions
from metering.core.decisions import Part
from metering.core.sums import Counter, LimitTotal
from metering.topic import publisher
from runtime.kafka.writer import Kafka, Writer
from schemas.daily import DailyUsage
from schemas.decisions import Decision
from schemas.topics import LIMITS_DECISIONS, USAGE_DAILY
from tests.support import records
from tests.unit.metering.factories import NOON, SLUG, HandClock
from tests.unit.metering.fakes import ListPublisher

DAY = NOON.date()
Told = TypeVar("Told", Decision, DailyUsage)


class Published(NamedTuple):
    """A publisher, and what its readers have by now, each counter's in the order of its versions' arrival."""

    publisher: ports.TotalsSink
    parts: Callable[[], Awaitable[Sequence[Decision]]]
    daily: Callable[[], Awaitable[Sequence[DailyUsage]]]


@pytest.fixture(params=["list", "kafka"])
async def published(request: pytest.FixtureRequest) -> AsyncIterator[Published]:
    if request.param == "list":
        fake = ListPublisher()

        async def parts() -> Sequence[Decision]:
            return [decisions.decision(one) for one in fake.parts]

        async def daily() -> Sequence[DailyUsage]:
            return fake.daily

        yield Published(fake, parts, daily)
        return
    where = request.getfixturevalue("kafka")
    await records.make_topics(where, partitions=3, only=(LIMITS_DECISIONS, USAGE_DAILY))
    writer = Writer(where, "test")

    yield Published(
        publisher.KafkaTotals(writer, HandClock(), _nothing_is_too_large),
        lambda: stored(where, LIMITS_DECISIONS, Decision),
        lambda: stored(where, USAGE_DAILY, DailyUsage),
    )
    await writer.close()


async def stored(where: Kafka, topic: str, contract: type[Told]) -> Sequence[Told]:
    found = await records.read(where, topic)
    return [contract.model_validate_json(one.value) for some in found.values() for one in some]


def part(group_id: str, version: int, slug: str = SLUG, partition: int = 1) -> Part:
    total = LimitTotal(Counter(DAY, group_id, slug), version, 10 * version, version, 6 * version, 4 * version)
    return Part(f"usage.events.v1/{partition}", partition, 100 + version, total)


def decision(group_id: str, version: int) -> Decision:
    return decisions.decision(part(group_id, version))


def _nothing_is_too_large(key: str, error: Exception) -> None:
    raise AssertionError(key) from error


def usage(group_id: str, version: int) -> DailyUsage:
    return DailyUsage(
        workspace_id="workspace",
        group_id=group_id,
        external_entity_id="customer",
        model_slug=SLUG,
        day=DAY,
        requests=version,
        input_tokens=1,
        output_tokens=2,
        cached_input_tokens=0,
        corrections=0,
        corrected_input_tokens=-1,
        corrected_output_tokens=0,
        version=version,
        updated_at=NOON + timedelta(milliseconds=version),
    )


async def test_what_was_published_is_there_whole_when_the_call_returns(published: Published) -> None:
    parts = [part(f"group-{number}", 1, partition=number % 3) for number in range(50)]
    daily = [usage(f"group-{number}", 1) for number in range(40)]
    await published.publisher.publish(parts, daily)

    told = {each.group_id: each for each in await published.parts()}
    assert told == {one.total.counter.group_id: decisions.decision(one) for one in parts}
    assert {each.group_id: each for each in await published.daily()} == {each.group_id: each for each in daily}


async def test_one_of_the_two_may_be_empty_and_so_may_both(published: Published) -> None:
    await published.publisher.publish([], [])
    await published.publisher.publish([part("a", 1)], [])
    await published.publisher.publish([], [usage("b", 1)])

    assert [each.group_id for each in await published.parts()] == ["a"]
    assert [each.group_id for each in await published.daily()] == ["b"]


async def test_versions_of_one_counter_stay_in_the_order_of_the_calls(published: Published) -> None:
    for version in range(1, 6):
        await published.publisher.publish([part("a", version), part("a", version, "org/other")], [usage("a", version)])

    newest = [each.version for each in await published.parts() if each.model_slug == SLUG]
    assert newest == [1, 2, 3, 4, 5]
    assert [each.version for each in await published.daily()] == [1, 2, 3, 4, 5]


async def test_the_same_version_may_be_published_again(published: Published) -> None:
    for _ in range(2):
        await published.publisher.publish([part("a", 1)], [usage("a", 1)])

    assert await published.parts() == [decision("a", 1)] * 2
    assert await published.daily() == [usage("a", 1)] * 2
