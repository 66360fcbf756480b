"""How busy each tree is in its own lane, and over how many lanes its events are to lie (counting 6).

Rules: above DOUBLE_ABOVE events/s in its own lane a tree's lanes are doubled, at most to all there are; below
HALVE_BELOW for HALVE_AFTER they are halved. It is judged by what came in WINDOW.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from schemas.spooled import AnyEvent

DOUBLE_ABOVE, HALVE_BELOW = 2000.0, 250.0
WINDOW = timedelta(seconds=10)
HALVE_AFTER = timedelta(minutes=10)


class BusyTrees:
    """The trees of one lane; `lanes` says over how many each lies now that lies in more than one."""

    def __init__(self, lanes: dict[str, int], most: int, is_own: Callable[[str], bool], now: datetime) -> None:
        """`is_own` says whether this is a tree's own lane, where it is judged."""
        self.lanes = lanes
        self._most = most
        self._is_own = is_own
        self._events: Tally[str] = Tally()
        self._since = now
        self._calm_since: dict[str, datetime] = {}

    def count(self, events: Iterable[AnyEvent]) -> None:
        """Take note of events; what charges nobody is of no tree."""
        self._events.update(event.charged_groups[-1] for event in events if event.charged_groups)

    def judge(self, now: datetime) -> dict[str, int]:
        """Return the trees whose lanes change, with how many they have from now on; none within a window."""
        passed_s = (now - self._since).total_seconds()
        if passed_s < WINDOW.total_seconds():
            return {}
        rates = {tree: count / passed_s for tree, count in self._events.items() if count > HALVE_BELOW * passed_s}
        self._events, self._since = Tally(), now
        changed = {}
        for tree in rates.keys() | self.lanes.keys():
            lanes, rate = self.lanes.get(tree, 1), rates.get(tree, 0.0)
            wanted = self._wanted(tree, lanes, rate, now)
            if wanted != lanes and self._is_own(tree):
                changed[tree] = self.lanes[tree] = wanted
                self._calm_since.pop(tree, None)
        return changed

    def _wanted(self, tree: str, lanes: int, rate: float, now: datetime) -> int:
        if rate > DOUBLE_ABOVE:
            return min(2 * lanes, self._most)
        if rate >= HALVE_BELOW or lanes == 1:
            self._calm_since.pop(tree, None)
            return lanes
        since = self._calm_since.setdefault(tree, now)
        return max(1, lanes // 2) if now - since >= HALVE_AFTER else lanes
