"""How fast attempts at one receiver may begin: live ones by a bound on any second, redriven ones spread out ahead.

Never reads a clock: whoever begins attempts says when.
"""

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta

_SECOND = timedelta(seconds=1)


class Pace:
    """Lets at most `per_s` attempts at one receiver begin within any second; None: no bound."""

    def __init__(self, per_s: int | None) -> None:
        self._per_s = per_s
        self._begun: dict[str, deque[datetime]] = {}

    def left(self, workspace_ids: Iterable[str], now: datetime) -> dict[str, int]:
        """Give how many attempts may begin at `now`; nothing of those that are not bound."""
        if self._per_s is None:
            return {}
        return {workspace_id: self._per_s - self._recent(workspace_id, now) for workspace_id in workspace_ids}

    def begin(self, workspace_id: str, now: datetime) -> None:
        """Note that an attempt begins at `now`."""
        if self._per_s is not None:
            self._begun.setdefault(workspace_id, deque()).append(now)

    def free_at(self, workspace_id: str) -> datetime | None:
        """Give when the next may begin where none may now; None where one may."""
        begun = self._begun.get(workspace_id)
        return begun[0] + _SECOND if begun and self._per_s is not None and len(begun) >= self._per_s else None

    def _recent(self, workspace_id: str, now: datetime) -> int:
        begun = self._begun.get(workspace_id)
        while begun and begun[0] + _SECOND <= now:
            begun.popleft()
        if not begun:
            self._begun.pop(workspace_id, None)
        return len(begun or ())


def spread(now: datetime, busy_until: datetime | None, count: int, per_s: float) -> list[datetime]:
    """Give the moments of `count` redriven deliveries, `per_s` a second, behind those planned up to `busy_until`."""
    step = _SECOND / per_s
    start = now if busy_until is None or busy_until < now else busy_until + step
    return [start + step * number for number in range(count)]
