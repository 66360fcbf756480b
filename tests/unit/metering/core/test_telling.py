"""Which counters are told at once, and which wait (counting 5)."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from domain.limit_tree import Threshold
from metering.core import telling
from metering.core.alerts import PeriodSum
from metering.core.sums import Counter, LimitTotal, Totals
from metering.core.telling import AT_LATEST, LaneTelling, ToldCounter
from schemas.limits import ANY_SLUG, LimitType, UsageLimitUnit
from tests.unit.metering.factories import NOON, SLUG

DAY = date(2025, 3, 14)
G = Counter(DAY, "g", SLUG)
THOUSAND = Threshold(LimitType.REQUEST, 1000)
LATER = NOON + timedelta(seconds=1)


class Scene:
    """One lane, whose counter `g` was told at NOON; `limits` are by slug."""

    def __init__(self, *, told: int = 0, lanes: int = 1, **limits: tuple[Threshold, ...]) -> None:
        self.limits = {SLUG: limits.get("slug", ()), ANY_SLUG: limits.get("over_all", ())}
        self.telling = LaneTelling()
        self.tell(told, lanes)

    def limits_of(self, _group_id: str, slug: str) -> tuple[Threshold, ...]:
        return self.limits[slug]

    def tell(self, requests: int, lanes: int = 1) -> None:
        total = LimitTotal(G, requests, 0, 1)
        over_all = replace(total, counter=Counter(DAY, "g", ANY_SLUG))
        month = replace(total, counter=Counter(DAY.replace(day=1), "g", SLUG))
        sums = [PeriodSum(total, UsageLimitUnit.DAY), PeriodSum(over_all, UsageLimitUnit.DAY)]
        left = telling.left_of(self.limits_of, [*sums, PeriodSum(month, UsageLimitUnit.MONTH)])(G)
        limits = telling.limits(G, self.limits_of)
        self.telling.told(ToldCounter("lane", total, lanes, limits, left), NOON)

    def due(self, requests: int, *, after: timedelta = timedelta(seconds=1)) -> bool:
        totals = Totals("lane", (), (LimitTotal(G, requests, 0, 2),), 9)
        found = self.telling.named(totals, self.limits_of, NOON + after)
        assert (found.lane, found.position) == ("lane", 9)
        assert G in self.telling.waiting
        return bool(found.limits)


def test_what_is_not_known_to_have_been_told_is_told() -> None:
    telling_ = LaneTelling()
    totals = Totals("lane", (), (LimitTotal(G, 1, 0, 1),), 9)
    assert telling_.named(totals, lambda *_: (), NOON) == totals


@pytest.mark.parametrize(("told", "last"), [(0, 49), (900, 904), (980, 980)])
def test_it_is_told_once_it_has_grown_by_a_twentieth_of_what_was_left(told: int, last: int) -> None:
    scene = Scene(told=told, slug=(THOUSAND,))
    assert not scene.due(last)
    assert scene.due(last + 1)


def test_it_waits_no_longer_than_its_time() -> None:
    scene = Scene()
    assert not scene.due(10**6, after=AT_LATEST - timedelta(milliseconds=1))
    assert scene.due(1, after=AT_LATEST)


def test_what_it_grew_here_counts_as_often_as_it_has_lanes() -> None:
    scene = Scene(lanes=5, slug=(THOUSAND,))
    assert not scene.due(9)
    assert scene.due(10)


def test_a_limit_that_is_used_up_asks_for_no_more_words_and_the_next_one_does() -> None:
    scene = Scene(told=1000, slug=(THOUSAND, Threshold(LimitType.REQUEST, 2000, UsageLimitUnit.MONTH)))
    assert not scene.due(1049)
    assert scene.due(1050)


def test_a_limit_over_all_slugs_counts_too() -> None:
    scene = Scene(over_all=(THOUSAND,))
    assert not scene.due(49)
    assert scene.due(50)


def test_where_a_sum_is_missing_each_growth_is_told() -> None:
    limits = {SLUG: (THOUSAND,), ANY_SLUG: ()}
    left = telling.left_of(lambda _, slug: limits[slug], ())(G)
    assert left == ((LimitType.REQUEST, 1),)


def test_a_change_of_limits_is_told_though_nothing_comes() -> None:
    scene = Scene(slug=(THOUSAND,))
    assert not scene.due(1)
    assert scene.telling.changed(scene.limits_of) == []
    scene.limits[SLUG] = (Threshold(LimitType.REQUEST, 2),)
    assert scene.telling.changed(scene.limits_of) == [G]
    assert scene.due(1)
    scene.tell(1)
    assert not scene.telling.waiting


def test_of_too_many_counters_those_told_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "MOST", 2)
    kept = LaneTelling()
    for name in "abac":
        kept.told(ToldCounter("lane", LimitTotal(G._replace(group_id=name), 1, 0, 1), 1, (), ()), NOON)
    totals = Totals("lane", (), tuple(LimitTotal(G._replace(group_id=name), 1, 0, 1) for name in "abc"), 9)
    assert [total.counter.group_id for total in kept.named(totals, lambda *_: (), LATER).limits] == ["b"]
