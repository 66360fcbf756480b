"""What events add, case by case; that any split adds the same is shown in tests/property/metering/core/test_sums.py."""

from datetime import UTC, datetime, timedelta, timezone

from domain import days
from metering.core import sums
from metering.core.sums import Counter, DailyIncrement, Increments, LimitIncrement
from tests.unit.metering.factories import NOON, SLUG, correction, event

TODAY = NOON.date()


def test_no_events_add_nothing() -> None:
    assert sums.increments([]) == Increments({}, {})


def test_daily_usage_is_the_own_groups_alone_and_limit_totals_are_all_charged_groups() -> None:
    added = sums.increments([event(1, group_id="child", charged_groups=("child", "root"), tokens=(10, 5, 4))])

    assert added.daily == {Counter(TODAY, "child", SLUG): DailyIncrement(1, 10, 5, 4)}
    assert added.limits == {Counter(TODAY, group, SLUG): LimitIncrement(1, 15, 10, 5) for group in ("child", "root")}


def test_siblings_meet_in_their_parent() -> None:
    events = [event(1, group_id="left", charged_groups=("left", "root"))]
    events += [event(2, group_id="right", charged_groups=("right", "root"), tokens=(1, 1, 0))]

    assert sums.increments(events).limits[Counter(TODAY, "root", SLUG)] == LimitIncrement(2, 17, 11, 6)


def test_a_group_named_twice_is_charged_once() -> None:
    twice = event(1, charged_groups=("group-a", "group-a"))

    assert sums.increments([twice]).limits == {Counter(TODAY, "group-a", SLUG): LimitIncrement(1, 15, 10, 5)}
    assert sums.limit_counters(twice) == (Counter(TODAY, "group-a", SLUG),)


def test_a_correction_is_apart_and_charged_to_nobody() -> None:
    charged = correction(1, charged_groups=("group-a",), tokens=(-7, 3, 0))
    added = sums.increments([charged])

    assert added.daily == {Counter(TODAY, "group-a", SLUG): DailyIncrement(0, 0, 0, 0, 1, -7, 3)}
    assert added.limits == {}
    assert sums.limit_counters(charged) == ()


def test_the_day_is_the_utc_day_of_the_events_own_timestamp() -> None:
    beyond_midnight = datetime(2025, 3, 2, 0, 30, tzinfo=timezone(timedelta(hours=1)))

    assert days.day_of(event(1, timestamp=beyond_midnight)) == TODAY
    assert days.day_of(event(1, timestamp=datetime(2025, 3, 2, tzinfo=UTC))) == TODAY + timedelta(days=1)


def test_slugs_are_counted_apart() -> None:
    added = sums.increments([event(1), event(2, model_slug="org/other")])

    assert {counter.model_slug for counter in added.daily} == {SLUG, "org/other"}
