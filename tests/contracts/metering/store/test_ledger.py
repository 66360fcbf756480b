"""What every `Ledger` does, the dict and the database alike; the database over both of its ways to insert."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.positions import BeyondPositionError, Progress
from metering import ports
from metering.core import sums
from metering.core.sums import Counter, LimitIncrement, LimitTotal, Totals
from metering.store import insert, transaction
from schemas.daily import DailyUsage
from schemas.usage import MOST_COST
from tests.support import engines
from tests.unit.metering.factories import LANE, NOON, SLUG, SPOOL, HandClock, batch, correction, event
from tests.unit.metering.fakes import DictLedger

TODAY = NOON.date()


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOON + timedelta(seconds=1))


@pytest.fixture(params=["dict", *(engine + way for engine in engines.ENGINES for way in ("", ", general insert"))])
def counted(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ports.Ledger]:
    if request.param == "dict":
        yield DictLedger(clock)
        return
    engine, _, general = request.param.partition(", ")
    if general:
        monkeypatch.setattr(insert, "_insert_all", lambda *_: False)
    with engines.made(engine, request, tmp_path).open() as opened:
        yield transaction.SqlLedger(opened, lambda _: clock())


def usage_of(totals: Totals, group_id: str, day: object = TODAY) -> DailyUsage:
    (found,) = [usage for usage in totals.daily if usage.group_id == group_id and usage.day == day]
    return found


def limit_of(totals: Totals, group_id: str, day: object = TODAY) -> LimitTotal:
    (found,) = [total for total in totals.limits if total.counter[:2] == (day, group_id)]
    return found


async def test_a_new_event_adds_to_its_own_groups_day_and_to_every_charged_group(counted: ports.Ledger) -> None:
    totals = await counted.apply(batch([event(1, charged_groups=("group-a", "parent", "root"), tokens=(10, 5, 4))]))

    (usage,) = totals.daily
    assert (usage.workspace_id, usage.group_id, usage.model_slug, usage.day) == (
        "workspace-a",
        "group-a",
        SLUG,
        TODAY,
    )
    assert usage.external_entity_id == "customer of group-a"
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (1, 10, 5, 4)
    assert (usage.corrections, usage.corrected_input_tokens, usage.corrected_output_tokens) == (0, 0, 0)
    assert (usage.version, usage.updated_at) == (1, NOON + timedelta(seconds=1))
    assert sorted(totals.limits, key=lambda total: total.counter) == [
        LimitTotal(Counter(TODAY, group, SLUG), 1, 15, 1, 10, 5) for group in ("group-a", "parent", "root")
    ]
    assert (totals.lane, totals.position) == (LANE, 2)


async def test_totals_grow_from_batch_to_batch_and_their_versions_with_them(counted: ports.Ledger) -> None:
    await counted.apply(batch([event(1), event(2)]))
    totals = await counted.apply(batch([event(3, tokens=(1, 2, 0))], 3))

    usage = usage_of(totals, "group-a")
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.version) == (3, 21, 12, 2)
    assert limit_of(totals, "group-a") == LimitTotal(Counter(TODAY, "group-a", SLUG), 3, 33, 2, 21, 12)


async def test_a_batch_that_comes_again_changes_nothing_and_gives_the_totals_again(counted: ports.Ledger) -> None:
    first = await counted.apply(batch([event(1, charged_groups=("group-a", "root")), correction(2)]))
    again = await counted.apply(batch([event(1, charged_groups=("group-a", "root")), correction(2)]))

    assert set(again.limits) == set(first.limits)
    assert again.daily == first.daily
    assert again.position == 3


async def test_an_old_batch_gives_the_newest_totals(counted: ports.Ledger) -> None:
    await counted.apply(batch([event(1)]))
    newest = await counted.apply(batch([event(2)], 2))
    again = await counted.apply(batch([event(1)]))

    assert (again.daily, again.limits) == (newest.daily, newest.limits)
    assert again.position == 3


async def test_a_batch_that_begins_beyond_the_position_is_refused_and_changes_nothing(counted: ports.Ledger) -> None:
    await counted.apply(batch([event(1)]))
    with pytest.raises(BeyondPositionError) as refused:
        await counted.apply(batch([event(3)], 3))

    assert refused.value.position == 2
    totals = await counted.apply(batch([event(2)], 2))
    assert usage_of(totals, "group-a").requests == 2


@pytest.mark.parametrize("skipped_offsets", [0, 2])
async def test_of_a_batch_that_straddles_the_position_the_new_part_is_counted(
    counted: ports.Ledger, skipped_offsets: int
) -> None:
    await counted.apply(batch([event(1), event(2, group_id="group-b")]))
    straddling = [event(1), event(2, group_id="group-b"), event(3)]
    totals = await counted.apply(batch(straddling, gap=skipped_offsets))

    assert usage_of(totals, "group-a").requests == 2
    assert usage_of(totals, "group-b").requests == 1
    assert totals.position == 4 + skipped_offsets


async def test_a_replay_under_other_offsets_and_numbers_changes_no_sum(counted: ports.Ledger) -> None:
    first = await counted.apply(batch([event(1), event(2)]))
    replayed = [event(7, number=1, instance="proxy-b"), event(8, number=2, instance="proxy-b")]
    again = await counted.apply(batch(replayed, 3))

    assert (again.daily, again.limits) == (first.daily, first.limits)
    assert again.position == 5, "else proxy-b would add its own rows to the total"


async def test_a_key_that_comes_twice_in_one_batch_counts_once(counted: ports.Ledger) -> None:
    twice = [event(1), event(2, number=1), event(3)]
    totals = await counted.apply(batch(twice))

    assert usage_of(totals, "group-a").requests == 2
    assert limit_of(totals, "group-a").requests == 2


async def test_of_two_different_events_of_one_key_in_one_batch_the_first_counts(counted: ports.Ledger) -> None:
    totals = await counted.apply(batch([event(1, tokens=(10, 5, 2)), event(2, number=1, tokens=(100, 50, 20))]))

    usage = usage_of(totals, "group-a")
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (1, 10, 5, 2)
    assert limit_of(totals, "group-a").tokens == 15


async def test_old_and_new_keys_in_one_batch_count_the_new_alone(counted: ports.Ledger) -> None:
    await counted.apply(batch([event(1)]))
    mixed = [event(2), event(9, number=1, instance="proxy-b"), event(3, group_id="group-b")]
    totals = await counted.apply(batch(mixed, 2))

    assert (usage_of(totals, "group-a").requests, usage_of(totals, "group-b").requests) == (2, 1)


async def test_a_correction_adds_to_the_corrected_figures_of_its_own_day_and_nowhere_else(
    counted: ports.Ledger,
) -> None:
    before = await counted.apply(batch([event(1, charged_groups=("group-a", "root"))]))
    tomorrow = NOON + timedelta(days=1)
    totals = await counted.apply(
        batch([correction(2), correction(3, timestamp=tomorrow, charged_groups=("group-a",), tokens=(4, 2, 1))], 2)
    )

    today = usage_of(totals, "group-a")
    assert (today.requests, today.input_tokens, today.output_tokens, today.cached_input_tokens) == (1, 10, 5, 2)
    assert (today.corrections, today.corrected_input_tokens, today.corrected_output_tokens) == (1, -3, -1)
    later = usage_of(totals, "group-a", tomorrow.date())
    assert (later.requests, later.input_tokens, later.cached_input_tokens) == (0, 0, 0)
    assert (later.corrections, later.corrected_input_tokens, later.corrected_output_tokens) == (1, 4, 2)
    assert totals.limits == ()
    again = await counted.apply(batch([event(1, charged_groups=("group-a", "root"))]))
    assert set(again.limits) == set(before.limits)


async def test_a_late_event_counts_on_the_day_of_its_own_timestamp(counted: ports.Ledger, clock: HandClock) -> None:
    clock.advance(days=3)
    last_moment = datetime(2025, 3, 1, 23, 59, 59, 999000, UTC)
    totals = await counted.apply(
        batch([event(1, timestamp=last_moment), event(2, timestamp=last_moment + timedelta(milliseconds=1))])
    )

    assert [usage_of(totals, "group-a", day).requests for day in (TODAY, TODAY + timedelta(days=1))] == [1, 1]


async def test_parts_are_the_lanes_own_and_together_they_are_the_whole(counted: ports.Ledger) -> None:
    await counted.apply(batch([event(5)], 5, topic="spool-b"))
    totals = await counted.apply(batch([event(1), event(2)]))

    assert (usage_of(totals, "group-a").requests, limit_of(totals, "group-a").requests) == (2, 2)
    counter = Counter(TODAY, "group-a", SLUG)
    ((daily,), (limit,)) = await counted.elsewhere(LANE, {counter}, {counter})
    assert (daily.requests, limit.requests) == (1, 1)
    whole = (await counted.daily({counter}))[counter]
    assert (whole.requests, whole.input_tokens, whole.version) == (3, 30, 2)


async def test_of_two_partitions_at_one_offset_only_the_batchs_own_moves(
    counted: ports.Ledger, clock: HandClock
) -> None:
    await counted.apply(batch([event(1)]))
    await counted.apply(batch([event(1, number=2, instance="proxy-b")], partition=1, lane="1"))
    clock.advance(seconds=1)
    await counted.apply(batch([event(2, number=3)], 2))

    assert [await counted.position(SPOOL, partition) for partition in (0, 1)] == [3, 2]


async def test_a_batch_without_events_moves_the_position(counted: ports.Ledger) -> None:
    assert await counted.position(SPOOL, 0) is None
    await counted.apply(batch([event(1)]))
    totals = await counted.apply(batch([], 2, gap=3))

    assert (totals.daily, totals.limits, totals.position) == ((), (), 5)
    assert await counted.position(SPOOL, 0) == 5
    assert await counted.position(SPOOL, 1) is None


async def test_counts_far_beyond_32_bits_are_kept(counted: ports.Ledger) -> None:
    many = 2**53
    totals = await counted.apply(batch([event(2**40, tokens=(many, many, 0))]))

    assert limit_of(totals, "group-a").tokens == 2 * many


async def test_names_are_kept_as_they_are_whatever_they_are_made_of(counted: ports.Ledger) -> None:
    names = [
        "NULL",
        "null",
        "{a,b}",
        'a"b',
        "a\\b",
        '\\"',
        "a,b",
        " a ",
        "a\nb",
        "a\tb",
        "'; --",
        "%s $1 :x",
        "漢字 🙂",
        "\x7f",
    ]
    events = [
        event(number, group_id=f"group {name}", charged_groups=(f"group {name}",), external_entity_id=name)
        for number, name in enumerate(names, 1)
    ]
    totals = await counted.apply(batch(events))
    assert {usage.group_id: usage.external_entity_id for usage in totals.daily} == {f"group {n}": n for n in names}
    assert {total.counter.group_id for total in totals.limits} == {f"group {name}" for name in names}


async def test_what_was_not_told_comes_in_pages_in_the_order_of_counters(
    counted: ports.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "PAGE", 2)
    yesterday = NOON - timedelta(days=1)
    events = [event(number, group_id=f"group-{number}", charged_groups=("root",)) for number in range(1, 6)]
    await counted.apply(batch([*events[:3], event(6, timestamp=yesterday)]))
    await counted.apply(batch(events[3:], 5))
    await counted.apply(batch([event(9)], topic="spool-b"))

    pages: list[list[str]] = []
    after = None
    while (totals := await counted.untold(SPOOL, 0, LANE, 5, TODAY, after)).daily or totals.limits:
        names = {sums.counter_of(usage) for usage in totals.daily} | {total.counter for total in totals.limits}
        pages.append(sorted(counter.group_id for counter in names))
        after = max(names)
        assert totals.position == 7
    assert pages == [["group-4", "group-5"], ["root"]]
    assert (await counted.untold(SPOOL, 0, LANE, -1, yesterday.date(), None)).daily[0].day == yesterday.date()


async def test_how_far_a_lane_is_told_is_noted_by_its_owner_alone(counted: ports.Ledger, clock: HandClock) -> None:
    assert await counted.progress(SPOOL, 0) is None
    await counted.apply(batch([event(1)]))
    assert await counted.progress(SPOOL, 0) == Progress(2, None, None, None, None)

    assert await counted.note_told(SPOOL, 0, 2, 40, clock.now)
    assert await counted.progress(SPOOL, 0) == Progress(2, 2, 40, clock.now, None)
    old = NOON - timedelta(days=2)
    await counted.apply(batch([event(2), event(3, timestamp=old)], 2))
    assert not await counted.note_told(SPOOL, 0, 2, 41, clock.now), "another has moved the position"
    assert await counted.progress(SPOOL, 0) == Progress(4, 2, 40, clock.now, old.date())
    assert await counted.note_told(SPOOL, 0, 4, 42, clock.now)
    assert await counted.progress(SPOOL, 0) == Progress(4, 4, 42, clock.now, None)


async def test_a_month_is_the_sum_of_its_days_lane_by_lane(counted: ports.Ledger) -> None:
    first = NOON.replace(day=1)
    old = event(4, timestamp=first - timedelta(seconds=43201))  # the last second of the month before
    later = first + timedelta(days=1)
    await counted.apply(batch([event(9, timestamp=first, cost=7)], 9, topic="spool-b"))
    await counted.apply(
        batch([event(1, timestamp=first, cost=2**53), event(2, timestamp=first), event(3, timestamp=later), old])
    )
    month = Counter(first.date(), "group-a", SLUG)
    own, (other,) = await counted.months(SPOOL, 0, LANE, {month, month._replace(group_id="nobody")})
    assert own == Totals(LANE, (), (LimitTotal(month, 3, 45, 2, 30, 15, 2**53),), 5)
    assert other == LimitTotal(month, 1, 15, 1, 10, 5, 7)
    assert await counted.named_in_month(LANE, month.day, ("", "")) == [("group-a", SLUG)]
    assert await counted.named_in_month(LANE, month.day, ("group-a", SLUG)) == []


async def test_what_counts_over_all_slugs_and_lanes_is_summed_by_group_between_days(counted: ports.Ledger) -> None:
    await counted.apply(batch([event(1, tokens=(10, 5, 0)), event(2, tokens=(1, 2, 0), model_slug="org/other")]))
    await counted.apply(batch([event(3, instance="b", tokens=(4, 0, 0))], topic="spool-b"))
    await counted.apply(batch([event(4, group_id="another")], 3))
    found = await counted.over_slugs(["group-a", "nobody"], TODAY, TODAY)
    assert dict(found) == {"group-a": LimitIncrement(3, 22, 15, 7)}
    assert not await counted.over_slugs(["group-a"], TODAY + timedelta(days=1), TODAY + timedelta(days=9))


async def test_no_price_however_high_makes_a_sum_that_has_no_room(counted: ports.Ledger) -> None:
    for first in (1, 101, 201):
        await counted.apply(batch([event(one, cost=MOST_COST) for one in range(first, first + 100)], first))
    (total,) = (await counted.over_slugs(["group-a"], TODAY, TODAY)).values()
    assert (total.requests, total.cost) == (300, sums.MOST_COST)
    month = Counter(TODAY.replace(day=1), "group-a", SLUG)
    own, _ = await counted.months(SPOOL, 0, LANE, {month})
    assert own.limits[0].cost == sums.MOST_COST


async def test_over_how_many_lanes_a_tree_lies_is_the_last_that_was_noted(
    counted: ports.Ledger, clock: HandClock
) -> None:
    for tree, lanes in (("root", 2), ("other", 8), ("root", 4)):
        await counted.note_spread(tree, lanes, clock())
    assert await counted.spreads() == {"root": 4, "other": 8}
