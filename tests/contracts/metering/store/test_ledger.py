"""What every `Ledger` does, the dict and the database alike; the database over both of its ways to insert."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.positions import BeyondPositionError, Progress, Span
from metering import flow
from metering.core.sums import Counter, LimitTotal, Totals
from metering.store import insert, transaction
from schemas.daily import DailyUsage
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
) -> Iterator[flow.Ledger]:
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


async def test_a_new_event_adds_to_its_own_groups_day_and_to_every_charged_group(counted: flow.Ledger) -> None:
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
        LimitTotal(Counter(TODAY, group, SLUG), 1, 15, 1) for group in ("group-a", "parent", "root")
    ]
    assert (dict(totals.marks), totals.position) == ({"proxy-a": 1}, 2)


async def test_totals_grow_from_batch_to_batch_and_their_versions_with_them(counted: flow.Ledger) -> None:
    await counted.apply(batch([event(1), event(2)]))
    totals = await counted.apply(batch([event(3, tokens=(1, 2, 0))], 3))

    usage = usage_of(totals, "group-a")
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.version) == (3, 21, 12, 2)
    assert limit_of(totals, "group-a") == LimitTotal(Counter(TODAY, "group-a", SLUG), 3, 33, 2)


async def test_a_batch_that_comes_again_changes_nothing_and_gives_the_totals_again(counted: flow.Ledger) -> None:
    first = await counted.apply(batch([event(1, charged_groups=("group-a", "root")), correction(2)]))
    again = await counted.apply(batch([event(1, charged_groups=("group-a", "root")), correction(2)]))

    assert set(again.limits) == set(first.limits)
    assert again.daily == first.daily
    assert (again.marks, again.position) == (first.marks, 3)


async def test_an_old_batch_gives_the_newest_totals(counted: flow.Ledger) -> None:
    await counted.apply(batch([event(1)]))
    newest = await counted.apply(batch([event(2)], 2))
    again = await counted.apply(batch([event(1)]))

    assert (again.daily, again.limits) == (newest.daily, newest.limits)
    assert (dict(again.marks), again.position) == ({"proxy-a": 2}, 3)


async def test_a_batch_that_begins_beyond_the_position_is_refused_and_changes_nothing(counted: flow.Ledger) -> None:
    await counted.apply(batch([event(1)]))
    with pytest.raises(BeyondPositionError) as refused:
        await counted.apply(batch([event(3)], 3))

    assert refused.value.position == 2
    totals = await counted.apply(batch([event(2)], 2))
    assert (usage_of(totals, "group-a").requests, dict(totals.marks)) == (2, {"proxy-a": 2})


@pytest.mark.parametrize("skipped_offsets", [0, 2])
async def test_of_a_batch_that_straddles_the_position_the_new_part_is_counted(
    counted: flow.Ledger, skipped_offsets: int
) -> None:
    await counted.apply(batch([event(1), event(2, group_id="group-b")]))
    straddling = [event(1), event(2, group_id="group-b"), event(3)]
    totals = await counted.apply(batch(straddling, gap=skipped_offsets))

    assert usage_of(totals, "group-a").requests == 2
    assert usage_of(totals, "group-b").requests == 1
    assert (dict(totals.marks), totals.position) == ({"proxy-a": 3}, 4 + skipped_offsets)


async def test_a_replay_under_other_offsets_and_numbers_changes_no_sum(counted: flow.Ledger) -> None:
    first = await counted.apply(batch([event(1), event(2)]))
    replayed = [event(7, number=1, instance="proxy-b"), event(8, number=2, instance="proxy-b")]
    again = await counted.apply(batch(replayed, topic="spool-b"))

    assert (again.daily, again.limits) == (first.daily, first.limits)
    assert dict(again.marks) == {"proxy-a": 2, "proxy-b": 8}, "else proxy-b would add its own rows to the total"


async def test_a_key_that_comes_twice_in_one_batch_counts_once(counted: flow.Ledger) -> None:
    twice = [event(1), event(2, number=1), event(3)]
    totals = await counted.apply(batch(twice))

    assert usage_of(totals, "group-a").requests == 2
    assert limit_of(totals, "group-a").requests == 2
    assert dict(totals.marks) == {"proxy-a": 3}


async def test_of_two_different_events_of_one_key_in_one_batch_the_first_counts(counted: flow.Ledger) -> None:
    totals = await counted.apply(batch([event(1, tokens=(10, 5, 2)), event(2, number=1, tokens=(100, 50, 20))]))

    usage = usage_of(totals, "group-a")
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (1, 10, 5, 2)
    assert limit_of(totals, "group-a").tokens == 15


async def test_old_and_new_keys_in_one_batch_count_the_new_alone(counted: flow.Ledger) -> None:
    await counted.apply(batch([event(1)]))
    mixed = [event(2), event(9, number=1, instance="proxy-b"), event(3, group_id="group-b")]
    totals = await counted.apply(batch(mixed, 2))

    assert (usage_of(totals, "group-a").requests, usage_of(totals, "group-b").requests) == (2, 1)


async def test_a_correction_adds_to_the_corrected_figures_of_its_own_day_and_nowhere_else(
    counted: flow.Ledger,
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


async def test_a_late_event_counts_on_the_day_of_its_own_timestamp(counted: flow.Ledger, clock: HandClock) -> None:
    clock.advance(days=3)
    last_moment = datetime(2025, 3, 1, 23, 59, 59, 999000, UTC)
    totals = await counted.apply(
        batch([event(1, timestamp=last_moment), event(2, timestamp=last_moment + timedelta(milliseconds=1))])
    )

    assert [usage_of(totals, "group-a", day).requests for day in (TODAY, TODAY + timedelta(days=1))] == [1, 1]


async def test_marks_are_the_lanes_own(counted: flow.Ledger) -> None:
    await counted.apply(batch([event(5)], 5, topic="spool-b", lane="other"))
    totals = await counted.apply(batch([event(1)]))

    assert dict(totals.marks) == {"proxy-a": 1}


async def test_a_mark_never_falls(counted: flow.Ledger) -> None:
    await counted.apply(batch([event(8), event(9)], 8))
    totals = await counted.apply(batch([event(4), event(3)], topic="replayed from earlier"))

    assert dict(totals.marks) == {"proxy-a": 9}


async def test_a_mark_is_the_highest_of_a_batch_that_repeats_earlier_numbers(counted: flow.Ledger) -> None:
    totals = await counted.apply(batch([event(7), event(8), event(5), event(6)]))

    assert dict(totals.marks) == {"proxy-a": 8}


async def test_of_two_partitions_at_one_offset_only_the_batchs_own_moves(
    counted: flow.Ledger, clock: HandClock
) -> None:
    await counted.apply(batch([event(1)]))
    await counted.apply(batch([event(1, number=2, instance="proxy-b")], partition=1, lane="1"))
    clock.advance(seconds=1)
    await counted.apply(batch([event(2, number=3)], 2))

    assert [await counted.position(SPOOL, partition) for partition in (0, 1)] == [3, 2]
    other = await counted.progress(SPOOL, 1)
    assert other is not None
    assert other.recorded_at < clock.now


async def test_a_batch_without_events_moves_the_position(counted: flow.Ledger) -> None:
    assert await counted.position(SPOOL, 0) is None
    await counted.apply(batch([event(1)]))
    totals = await counted.apply(batch([], 2, gap=3))

    assert (totals.daily, totals.limits, totals.position) == ((), (), 5)
    assert await counted.position(SPOOL, 0) == 5
    assert await counted.position(SPOOL, 1) is None


async def test_counts_far_beyond_32_bits_are_kept(counted: flow.Ledger) -> None:
    many = 2**53
    totals = await counted.apply(batch([event(2**40, tokens=(many, many, 0))]))

    assert limit_of(totals, "group-a").tokens == 2 * many
    assert dict(totals.marks) == {"proxy-a": 2**40}


async def test_an_instance_that_the_lane_has_not_heard_of_for_long_is_no_longer_named(
    counted: flow.Ledger, clock: HandClock
) -> None:
    await counted.apply(batch([event(1, instance="gone")]))
    clock.advance(days=10)
    at_the_edge = await counted.apply(batch([event(1, number=2)], 2))
    clock.advance(seconds=1)
    beyond = await counted.apply(batch([event(2, number=3)], 3))
    clock.advance(days=300)
    alone = await counted.apply(batch([event(2, number=3)], 3))

    assert dict(at_the_edge.marks) == {"gone": 1, "proxy-a": 1}
    assert dict(beyond.marks) == {"proxy-a": 2}
    assert dict(alone.marks) == {"proxy-a": 2}, "a lane that is silent names those who spoke last"


async def test_what_changed_on_a_lane_since_a_moment_comes_with_the_partitions_position(
    counted: flow.Ledger, clock: HandClock
) -> None:
    await counted.apply(batch([event(1), event(2, group_id="group-b")]))
    clock.advance(minutes=11)
    await counted.apply(batch([event(3)], 3))

    first, reached = await _everything(counted, Span(NOON, clock.now))
    late, _ = await counted.changed(SPOOL, 0, LANE, Span(clock.now, clock.now))
    early, _ = await counted.changed(SPOOL, 0, LANE, Span(NOON, clock.now - timedelta(minutes=1)))
    other, _ = await counted.changed("other", 0, "other", Span(NOON, clock.now))

    assert (first, reached) == ({"group-a", "group-b"}, clock.now)
    assert [usage.group_id for usage in early.daily] == ["group-b"], "group-a changed again since"
    assert [(total.counter.group_id, total.requests) for total in late.limits] == [("group-a", 2)]
    assert (dict(late.marks), late.position) == ({"proxy-a": 3}, 4)
    assert (other.daily, other.limits, other.position) == ((), (), None)


async def _everything(counted: flow.Ledger, span: Span) -> tuple[set[str], datetime]:
    """Return the groups whose totals changed, and how far the reading came, page by page."""
    groups: set[str] = set()
    reached = span.since - timedelta(seconds=1)
    while reached < span.through:
        totals, reached = await counted.changed(SPOOL, 0, LANE, Span(reached + timedelta(microseconds=1), span.through))
        groups |= {usage.group_id for usage in totals.daily} | {total.counter.group_id for total in totals.limits}
    return groups, reached


async def test_what_is_published_is_noted_and_never_goes_back(counted: flow.Ledger, clock: HandClock) -> None:
    assert await counted.progress(SPOOL, 0) is None
    await counted.apply(batch([event(1)]))
    first = await counted.progress(SPOOL, 0)
    assert first == Progress(2, clock.now, None, None)

    clock.advance(seconds=1)
    await counted.apply(batch([event(2)], 2))
    second = await counted.progress(SPOOL, 0)
    assert second is not None
    await counted.note_published(SPOOL, 0, second)
    await counted.note_published(SPOOL, 0, first)
    clock.advance(seconds=1)
    await counted.apply(batch([event(3)], 3))
    assert await counted.progress(SPOOL, 0) == Progress(4, clock.now, 3, second.recorded_at)
    assert await counted.progress(SPOOL, 1) is None
