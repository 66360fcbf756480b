"""Whatever is created, changed and deleted in whatever order, the trees keep their rules (contract 2.2)."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from control.core import rules
from control.core.refusals import RefusalError
from control.flow import groups
from schemas.api import CreateGroup, UpdateGroup
from tests.unit.control.fakes import FakeGroups, FakeStores, serve

Step = tuple[str, int, int | None, str | None, int | None]
SLUGS = ("acme/a", "acme/b")
THRESHOLDS = st.none() | st.integers(1, 4)
MODES = st.sampled_from([None, "CASCADING", "INDEPENDENT"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.integers(0, 9), st.integers(0, 12), MODES, THRESHOLDS),
        st.tuples(st.just("patch"), st.integers(0, 9), st.integers(0, 1), st.none(), THRESHOLDS),
        st.tuples(st.just("delete"), st.integers(0, 9), st.none(), st.none(), st.none()),
    ),
    max_size=40,
)


def model(slug: str, threshold: int | None) -> dict[str, Any]:
    limits = [] if threshold is None else [{"type": "TOKEN", "unit": "DAY", "threshold": threshold}]
    rates = [] if threshold is None else [{"type": "REQUEST", "unit": "MINUTE", "threshold": 5 - threshold}]
    return {"slug": slug, "usage_limits": limits, "rate_limits": rates}


def take(stored: FakeStores, step: Step) -> None:
    what, at, more, mode, threshold = step
    there = list(stored.groups.kept)
    chosen = there[-at % len(there)] if there and at else None
    serve(stored.endpoints, *SLUGS)
    stored.journal.notes.clear()
    if what == "make":
        body = {
            "metadata": {"external_entity_id": f"customer {more}"},
            "models": [model(SLUGS[0], threshold)],
            "hierarchy": {"parent_group_id": chosen, "limit_enforcement": mode},
        }
        groups.create(stored.unit(), CreateGroup.model_validate(body))
    elif what == "patch":
        change = UpdateGroup.model_validate({"models": [model(SLUGS[more or 0], threshold)]})
        groups.update(stored.unit(), chosen or "nothing", change)
    else:
        groups.delete(stored.unit(), chosen or "nothing")
    assert len(stored.journal.notes) == 1


def check(tree: FakeGroups) -> None:
    kept = tree.kept.values()
    external_ids = [group.record.external_entity_id for group in kept]
    assert len(external_ids) == len(set(external_ids))
    for group in kept:
        record, (_, *above) = group.record, tree.chain(group.record.id)
        assert record.ancestor_ids == tuple(each.record.id for each in above)
        assert record.parent_group_id == (above[0].record.id if above else None)
        assert len(above) < 5
        assert {each.record.limit_enforcement for each in above} <= {record.limit_enforcement}
        if record.limit_enforcement == "CASCADING":
            assert not any(rules.exceeds(record.models, each.record.models) for each in above)


@settings(deadline=None)
@given(st.integers(0, 5), MODES, STEPS)
@example(5, None, [("make", 1, 0, None, None)])  # one level too many
def test_no_sequence_of_changes_breaks_a_tree(levels: int, mode: str | None, steps: list[Step]) -> None:
    """Begin with a tree of one way down: from nothing few examples come to where a tree may grow no deeper."""
    stored = FakeStores()
    for level in range(levels):
        take(stored, ("make", 1, 20 + level, mode, None))
    for step in steps:
        before = dict(stored.groups.kept)
        try:
            take(stored, step)
        except RefusalError:
            assert stored.groups.kept == before
        check(stored.groups)
