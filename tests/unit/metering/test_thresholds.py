"""Thresholds of groups as the configuration feed brings and takes them."""

import pytest

from domain.limit_tree import Threshold
from metering.thresholds import GroupThresholds
from schemas.config import ConfigChange, ConfigKind, GroupRecord, WorkspaceRecord, WorkspaceState
from schemas.limits import LimitEnforcement, LimitType, ModelConfig, UsageLimit, UsageLimitUnit
from tests.unit.metering.factories import SLUG, change, group

REQUESTS_9 = (Threshold(LimitType.REQUEST, 9),)
REQUESTS_5 = (Threshold(LimitType.REQUEST, 5),)


def test_an_unknown_group_has_no_thresholds() -> None:
    assert GroupThresholds().of("nobody", SLUG) == ()


def test_a_child_inherits_where_limits_are_independent() -> None:
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "root", group("root", requests=9)))
    thresholds.apply(change(2, "child", group("child", "root", tokens=4)))

    assert set(thresholds.of("child", SLUG)) == {*REQUESTS_9, Threshold(LimitType.TOKEN, 4)}
    assert thresholds.of("child", "org/other") == ()


def test_each_group_has_its_own_where_limits_cascade() -> None:
    thresholds = GroupThresholds()
    mode = LimitEnforcement.CASCADING
    thresholds.apply(change(1, "root", group("root", mode=mode, requests=9)))
    thresholds.apply(change(2, "child", group("child", "root", mode=mode, requests=5)))

    assert thresholds.of("root", SLUG) == REQUESTS_9
    assert thresholds.of("child", SLUG) == REQUESTS_5


def test_a_change_of_an_ancestor_is_seen_at_once() -> None:
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "root", group("root", requests=9)))
    thresholds.apply(change(2, "child", group("child", "root")))
    assert thresholds.of("child", SLUG) == REQUESTS_9

    thresholds.apply(change(3, "root", group("root", requests=5)))
    assert thresholds.of("child", SLUG) == REQUESTS_5


def test_a_lower_or_equal_version_is_ignored() -> None:
    thresholds = GroupThresholds()
    thresholds.apply(change(3, "root", group("root", requests=5)))
    thresholds.apply(change(2, "root", group("root", requests=9)))
    thresholds.apply(change(3, "root", group("root", requests=9)))
    assert thresholds.of("root", SLUG) == REQUESTS_5


def test_a_group_that_is_gone_stays_gone_when_its_older_record_comes_late() -> None:
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "root", group("root", requests=9)))
    thresholds.apply(change(3, "root", None))
    thresholds.apply(change(2, "root", group("root", requests=9)))
    assert thresholds.of("root", SLUG) == ()


def test_a_child_of_a_group_that_is_gone_has_no_thresholds() -> None:
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "root", group("root", requests=9)))
    thresholds.apply(change(2, "child", group("child", "root", requests=5)))
    thresholds.apply(change(3, "root", None))
    assert thresholds.of("child", SLUG) == ()


def test_other_kinds_are_ignored() -> None:
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "same-id", group("same-id", requests=9)))
    workspace = WorkspaceRecord(id="same-id", name="lab", state=WorkspaceState.ACTIVE, operator_credential=False)
    thresholds.apply(ConfigChange(version=2, kind=ConfigKind.WORKSPACE, id="same-id", record=workspace))
    assert thresholds.of("same-id", SLUG) == REQUESTS_9


MONTH = UsageLimit(type=LimitType.TOKEN, unit=UsageLimitUnit.MONTH, threshold=7)


def monthly(id_: str, *ancestors: str, slug: str = SLUG, mode: LimitEnforcement = LimitEnforcement.INDEPENDENT,
            threshold: int = 7) -> GroupRecord:  # fmt: skip
    limit = MONTH.model_copy(update={"threshold": threshold})
    return group(id_, *ancestors, mode=mode).model_copy(
        update={"models": (ModelConfig(slug=slug, usage_limits=(limit,)), ModelConfig(slug="org/plain"))}
    )


@pytest.mark.parametrize("slug", [SLUG, "*"])
def test_months_are_told_of_the_counters_that_a_limit_on_them_is_compared_with(slug: str) -> None:
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "root", monthly("root", slug=slug)))
    thresholds.apply(change(2, "child", group("child", "root")))
    thresholds.apply(change(3, "other", group("other")))
    assert thresholds.is_monthly("root", SLUG)
    assert thresholds.is_monthly("child", SLUG), "it inherits the limit, which counts its own use"
    assert not thresholds.is_monthly("other", SLUG)
    assert thresholds.is_monthly("root", "org/else") is (slug == "*")

    cascading = GroupThresholds()
    mode = LimitEnforcement.CASCADING
    cascading.apply(change(1, "root", monthly("root", slug=slug, mode=mode)))
    cascading.apply(change(2, "child", group("child", "root", mode=mode)))
    assert (cascading.is_monthly("root", SLUG), cascading.is_monthly("child", SLUG)) == (True, False)


def test_a_limit_on_months_that_comes_or_changes_is_noted_for_all_below() -> None:
    thresholds = GroupThresholds()
    for version, record in enumerate((monthly("root"), group("child", "root"), group("other")), 1):
        thresholds.apply(change(version, record.id, record))
    assert thresholds.month_changes == 0, "what is made with a limit has used nothing yet"
    thresholds.apply(change(4, "root", monthly("root", threshold=9)))
    thresholds.apply(change(5, "other", group("other", requests=4)))
    assert thresholds.month_changes == 1
    assert [thresholds.months_changed(0, name) for name in ("root", "child", "other")] == [True, True, False]
    assert not thresholds.months_changed(1, "root")
    for version in range(6, 1100):
        thresholds.apply(change(version, "other", monthly("other", threshold=version)))
    assert thresholds.months_changed(0, "child"), "more than is remembered: it may be any"
    assert not thresholds.months_changed(thresholds.month_changes - 1000, "child")
