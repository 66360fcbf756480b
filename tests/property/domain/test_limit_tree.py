"""The hierarchy against a slow implementation that says the rules of contract 2.2 word by word."""

from collections.abc import Sequence
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from domain import limit_tree
from domain.limit_tree import Threshold
from schemas.config import GroupRecord
from schemas.limits import (
    EffectiveRateLimit,
    EffectiveUsageLimit,
    LimitEnforcement,
    LimitType,
    ModelConfig,
    RateLimit,
    RateLimitUnit,
    UsageLimit,
    UsageLimitUnit,
)

Limit = RateLimit | UsageLimit
Held = set[tuple[str, str, str, int, str]]

LEVELS = 5
SLUGS = ["org/a", "org/b", "*"]
RATES = [
    (type_, unit)
    for type_ in LimitType
    for unit in RateLimitUnit
    if (unit is not RateLimitUnit.CONCURRENT or type_ is LimitType.REQUEST) and type_ is not LimitType.COST
]
USAGES = list(product(LimitType, UsageLimitUnit))
UNITS = [*RateLimitUnit, *UsageLimitUnit]


@st.composite
def models(draw: st.DrawFn) -> tuple[ModelConfig, ...]:
    thresholds = st.integers(1, 5)
    listed = draw(st.lists(st.sampled_from(SLUGS), unique=True))
    return tuple(
        ModelConfig(
            slug=slug,
            rate_limits=tuple(
                RateLimit(type=type_, unit=unit, threshold=draw(thresholds))
                for type_, unit in draw(st.lists(st.sampled_from(RATES), unique=True))
            ),
            usage_limits=tuple(
                UsageLimit(type=type_, unit=unit, threshold=draw(thresholds))
                for type_, unit in draw(st.lists(st.sampled_from(USAGES), unique=True))
            ),
        )
        for slug in listed
    )


@st.composite
def trees(draw: st.DrawFn) -> dict[str, GroupRecord]:
    """Return a tree of up to twelve groups on up to five levels."""
    mode = draw(st.sampled_from(LimitEnforcement))
    groups: dict[str, GroupRecord] = {}
    for number in range(draw(st.integers(1, 12))):
        parents = [group for group in groups.values() if len(group.ancestor_ids) < LEVELS - 1]
        parent = draw(st.sampled_from(parents)) if parents else None
        groups[f"g{number}"] = GroupRecord(
            id=f"g{number}",
            workspace_id="w",
            external_entity_id=f"e{number}",
            parent_group_id=parent.id if parent else None,
            ancestor_ids=(parent.id, *parent.ancestor_ids) if parent else (),
            limit_enforcement=mode,
            models=draw(models()),
        )
    return groups


def way_to_the_root(tree: dict[str, GroupRecord], id_: str) -> list[GroupRecord]:
    way = [tree[id_]]
    while (parent := way[-1].parent_group_id) is not None:
        way.append(tree[parent])
    return way


def set_by(group: GroupRecord, slug: str, type_: str, unit: str) -> list[int]:
    """Return what one group itself sets for (slug, type, unit): one threshold or none."""
    found: list[int] = []
    for model in group.models:
        limits: Sequence[Limit] = [*model.rate_limits, *model.usage_limits]
        found += [each.threshold for each in limits if model.slug == slug and each.type == type_ and each.unit == unit]
    return found


def slow_limits(way: list[GroupRecord], slug: str) -> Held:
    held: Held = set()
    for type_, unit in product(LimitType, UNITS):
        holding = [(threshold, group.id) for group in way for threshold in set_by(group, slug, type_, unit)]
        if way[0].limit_enforcement == "INDEPENDENT":
            holding = holding[:1]  # the way begins with the group itself, so the first is the closest
        held |= {(slug, type_, unit, threshold, source) for threshold, source in holding}
    return held


@given(trees())
def test_effective_limits_are_those_of_the_slow_implementation(tree: dict[str, GroupRecord]) -> None:
    for id_ in tree:
        way = way_to_the_root(tree, id_)
        for slug in SLUGS:
            model = limit_tree.effective_model(way, slug)
            assert (model is not None) == any(each.slug == slug for group in way for each in group.models)
            limits: list[EffectiveRateLimit | EffectiveUsageLimit] = []
            if model is not None:
                limits += [*model.rate_limits, *model.usage_limits]
            found = [(slug, each.type, each.unit, each.threshold, each.source_group) for each in limits]
            assert set(found) == slow_limits(way, slug)
            assert len(found) == len(set(found))


@given(trees())
def test_nodes_say_the_same_as_the_records_that_they_are_of(tree: dict[str, GroupRecord]) -> None:
    nodes = {id_: limit_tree.Node.of(record) for id_, record in tree.items()}
    for id_ in tree:
        records, kept = limit_tree.chain(id_, tree.get), limit_tree.chain(id_, nodes.get)
        assert limit_tree.charged_groups(kept) == limit_tree.charged_groups(records)
        assert limit_tree.effective_models(kept) == limit_tree.effective_models(records)
        assert [group.workspace_id for group in kept] == [group.workspace_id for group in records]
        assert [group.external_entity_id for group in kept] == [group.external_entity_id for group in records]


@given(trees())
def test_a_group_may_call_what_it_or_an_ancestor_lists(tree: dict[str, GroupRecord]) -> None:
    for id_ in tree:
        way = way_to_the_root(tree, id_)
        slugs = limit_tree.callable_slugs(way)
        listed = {model.slug for group in way for model in group.models}
        assert set(slugs) == listed - {"*"}
        shown = [model.slug for model in limit_tree.effective_models(way)]
        assert set(shown) == listed
        assert [slug for slug in shown if slug != "*"] == list(slugs)
        assert len(slugs) == len(set(slugs))


@given(trees())
def test_a_request_is_charged_to_the_group_or_to_its_whole_way(tree: dict[str, GroupRecord]) -> None:
    for id_ in tree:
        way = way_to_the_root(tree, id_)
        cascading = way[0].limit_enforcement is LimitEnforcement.CASCADING
        assert list(limit_tree.charged_groups(way)) == ([group.id for group in way] if cascading else [id_])


@given(trees())
def test_every_usage_limit_that_holds_is_a_threshold_of_exactly_the_counter_it_is_compared_with(
    tree: dict[str, GroupRecord],
) -> None:
    for id_, slug in product(tree, SLUGS):
        way = way_to_the_root(tree, id_)
        own = {
            Threshold(LimitType(type_), threshold, UsageLimitUnit(unit))
            for _, type_, unit, threshold, source in slow_limits(way, slug)
            if unit in list(UsageLimitUnit) and (way[0].limit_enforcement == "INDEPENDENT" or source == id_)
        }
        assert set(limit_tree.thresholds(way, slug)) == own
        model = limit_tree.effective_model(way, slug)
        for limit in model.usage_limits if model is not None else ():
            counter = limit_tree.counting_group(way, limit)
            assert counter in limit_tree.charged_groups(way)
            named = Threshold(limit.type, limit.threshold, limit.unit)
            assert named in limit_tree.thresholds(way_to_the_root(tree, counter), slug)
