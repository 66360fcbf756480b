"""The rules of contract 2.2 on small trees; random trees are in tests/property/domain/test_limit_tree.py."""

import pytest

from domain import limit_tree
from domain.limit_tree import Threshold
from schemas.config import GroupRecord
from schemas.limits import LimitEnforcement, LimitType, ModelConfig, RateLimit, RateLimitUnit
from tests.unit.metering.factories import SLUG, group

INDEPENDENT, CASCADING = LimitEnforcement.INDEPENDENT, LimitEnforcement.CASCADING


def chain(mode: LimitEnforcement) -> tuple[GroupRecord, ...]:
    """A child with a token limit, a parent with both, a root with a request limit."""
    return (
        group("child", "parent", "root", mode=mode, tokens=10),
        group("parent", "root", mode=mode, tokens=20, requests=2),
        group("root", mode=mode, requests=3),
    )


def test_the_closest_group_that_sets_a_limit_wins_where_limits_are_independent() -> None:
    model = limit_tree.effective_model(chain(INDEPENDENT), SLUG)

    assert model is not None
    assert [(limit.type, limit.threshold, limit.source_group) for limit in model.usage_limits] == [
        (LimitType.TOKEN, 10, "child"),
        (LimitType.REQUEST, 2, "parent"),
    ]
    assert limit_tree.charged_groups(chain(INDEPENDENT)) == ("child",)


def test_every_limit_on_the_way_holds_where_limits_cascade() -> None:
    model = limit_tree.effective_model(chain(CASCADING), SLUG)

    assert model is not None
    assert {(limit.type, limit.threshold, limit.source_group) for limit in model.usage_limits} == {
        (LimitType.TOKEN, 10, "child"),
        (LimitType.TOKEN, 20, "parent"),
        (LimitType.REQUEST, 2, "parent"),
        (LimitType.REQUEST, 3, "root"),
    }
    assert limit_tree.charged_groups(chain(CASCADING)) == ("child", "parent", "root")


def test_thresholds_are_those_that_the_own_counter_is_compared_with() -> None:
    tokens_10, requests_2 = Threshold(LimitType.TOKEN, 10), Threshold(LimitType.REQUEST, 2)

    assert limit_tree.thresholds(chain(INDEPENDENT), SLUG) == (tokens_10, requests_2)
    assert limit_tree.thresholds(chain(CASCADING), SLUG) == (tokens_10,)


@pytest.mark.parametrize(("mode", "counter"), [(INDEPENDENT, "child"), (CASCADING, "parent")])
def test_a_limit_is_compared_with_the_own_groups_counter_or_its_sources(mode: LimitEnforcement, counter: str) -> None:
    model = limit_tree.effective_model(chain(mode), SLUG)

    assert model is not None
    (limit,) = [limit for limit in model.usage_limits if limit.threshold == 2]
    assert limit_tree.counting_group(chain(mode), limit) == counter


def test_a_slug_that_nobody_lists_may_not_be_called() -> None:
    assert limit_tree.effective_model(chain(INDEPENDENT), "org/other") is None
    assert limit_tree.thresholds(chain(CASCADING), "org/other") == ()


@pytest.mark.parametrize("mode", [INDEPENDENT, CASCADING])
def test_a_slug_that_only_an_ancestor_lists_may_be_called(mode: LimitEnforcement) -> None:
    own = group("child", "root", mode=mode).model_copy(update={"models": (ModelConfig(slug="org/own"),)})
    tree = (own, group("root", mode=mode, requests=3))

    assert limit_tree.callable_slugs(tree) == ("org/own", SLUG)
    assert [model.slug for model in limit_tree.effective_models(tree)] == ["org/own", SLUG]


def test_rates_of_different_units_do_not_hide_each_other() -> None:
    def with_rate(record: GroupRecord, unit: RateLimitUnit) -> GroupRecord:
        rate = RateLimit(type=LimitType.REQUEST, unit=unit, threshold=4)
        return record.model_copy(update={"models": (ModelConfig(slug=SLUG, rate_limits=(rate,)),)})

    tree = (
        with_rate(group("child", "root"), RateLimitUnit.SECOND),
        with_rate(group("root"), RateLimitUnit.MINUTE),
    )
    model = limit_tree.effective_model(tree, SLUG)

    assert model is not None
    assert {(limit.unit, limit.source_group) for limit in model.rate_limits} == {
        (RateLimitUnit.SECOND, "child"),
        (RateLimitUnit.MINUTE, "root"),
    }


class _Slug(str):
    """A slug that counts how often one is compared with another."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        _Slug.compared += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_a_long_list_is_read_once_and_not_once_for_each_slug_of_it() -> None:
    models = tuple(ModelConfig.model_construct(slug=_Slug(f"org/{number}")) for number in range(300))
    tree = tuple(group(name, *above).model_copy(update={"models": models}) for name, *above in (("a", "b"), ("b",)))
    _Slug.compared = 0
    assert len(limit_tree.effective_models(tree)) == 300
    assert _Slug.compared < 4 * 300
