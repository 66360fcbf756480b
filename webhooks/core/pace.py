"""How fast attempts at one receiver may begin: live ones by a bound on any second, redriven ones spread out ahead."""

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta


class Pace:
    """Lets at most `per_s` attempts at one receiver begin within any second; None: no bound."""

    def __init__(self, per_s: int | None) -> None:
        self._per_s = per_s
        self._begun: dict[str, deque[float]] = {}

    def left(self, workspace_ids: Iterable[str], now_s: float) -> dict[str, int]:
        """Return how many attempts may begin at `now_s`; nothing of those that are not bound."""
        if self._per_s is None:
            return {}
        return {workspace_id: self._per_s - self._recent(workspace_id, now_s) for workspace_id in workspace_ids}

    def begin(self, workspace_id: str, now_s: float) -> None:
        """Note that an attempt begins at `now_s`."""
        if self._per_s is not None:
            self._begun.setdefault(workspace_id, deque()).append(now_s)

    def free_at_s(self, workspace_id: str) -> float | None:
        """Return when the next may begin where none may now; None where one may."""
        begun = self._begun.get(workspace_id)
        return begun[0] + 1 if begun and self._per_s is not None and len(begun) >= self._per_s else None

    def _recent(self, workspace_id: str, now_s: float) -> int:
        begun = self._begun.get(workspace_id)
        while begun and begun[0] + 1 <= now_s:
            begun.popleft()
        if not begun:
            self._begun.pop(workspace_id, None)
        return len(begun or ())


def spread(now: datetime, busy_until: datetime | None, count: int, per_s: float) -> list[datetime]:
    """Return the moments of `count` redriven deliveries, `per_s` a second, behind those planned up to `busy_until`."""
    step = timedelta(seconds=1) / per_s
    start = now if busy_until is None or busy_until < now else busy_until + step
    return [start + step * number for number in range(count)]
