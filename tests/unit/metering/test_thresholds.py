"""Thresholds of groups as the configuration feed brings and takes them."""

from domain.limit_tree import Threshold
from metering.thresholds import GroupThresholds
from schemas.config import ConfigChange, ConfigKind, WorkspaceRecord, WorkspaceState
from schemas.limits import LimitEnforcement, LimitType
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
