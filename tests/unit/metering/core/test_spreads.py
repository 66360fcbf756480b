"""When a busy tree gets more lanes, and when it gives them back (counting 6)."""

from datetime import timedelta

from metering.core.spreads import DOUBLE_ABOVE, HALVE_AFTER, HALVE_BELOW, WINDOW, BusyTrees
from tests.unit.metering.factories import NOON, correction, event

SECONDS = WINDOW.total_seconds()


class Lane:
    """A lane that one tree may be at home in."""

    def __init__(self, lanes: int = 1, *, is_own: bool = True) -> None:
        self.now = NOON
        self.trees = BusyTrees({"root": lanes} if lanes > 1 else {}, 8, lambda _: is_own, NOON)

    def window(self, per_s: float) -> dict[str, int]:
        """Let a window pass with so many events a second of the tree."""
        one = event(1, charged_groups=("child", "root"))
        self.trees.count([one] * round(per_s * SECONDS))
        self.now += WINDOW
        return self.trees.judge(self.now)


def test_a_busy_tree_is_doubled_window_by_window_up_to_all_lanes() -> None:
    lane = Lane()
    assert lane.window(DOUBLE_ABOVE) == {}
    assert [lane.window(DOUBLE_ABOVE + 1) for _ in range(4)] == [{"root": 2}, {"root": 4}, {"root": 8}, {}]


def test_nothing_is_judged_within_a_window() -> None:
    lane = Lane()
    lane.trees.count([event(1, charged_groups=("root",))] * 10**5)
    assert lane.trees.judge(NOON + WINDOW - timedelta(milliseconds=1)) == {}
    assert lane.trees.judge(NOON + WINDOW) == {"root": 2}


def test_a_calm_tree_is_halved_once_it_was_calm_for_long() -> None:
    lane = Lane(4)
    windows = round(HALVE_AFTER / WINDOW)
    assert [lane.window(HALVE_BELOW - 1) for _ in range(windows)] == [{}] * windows
    assert lane.window(0) == {"root": 2}
    assert lane.window(HALVE_BELOW + 1) == {}
    assert [lane.window(0) for _ in range(windows)] == [{}] * windows, "calm anew"
    assert lane.window(0) == {"root": 1}
    assert lane.window(0) == {}


def test_another_lanes_tree_is_not_judged_and_corrections_are_no_trees() -> None:
    lane = Lane(is_own=False)
    lane.trees.count([correction(1)])
    assert lane.window(DOUBLE_ABOVE + 1) == {}
    assert lane.trees.lanes == {}
