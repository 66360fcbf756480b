"""Which limits are near their end, for people to see: those that admissions met above a share of the threshold.

At most `MOST_KNOWN` are remembered, and `MOST_SHOWN` shown, the fullest first.
"""

from collections.abc import Callable
from datetime import date
from heapq import nlargest
from typing import NamedTuple

from domain.days import month_of
from schemas.limits import LimitType, UsageLimitUnit

NEAR = 0.9
"""The share of a threshold from which on a limit is near its end."""
MOST_KNOWN = 1000
MOST_SHOWN = 50


class NearLimit(NamedTuple):
    """One limit, by what it counts."""

    group: str
    slug: str
    type: LimitType
    unit: UsageLimitUnit


class NearLimits:
    """The limits of one proxy that are near their end."""

    def __init__(self) -> None:
        self._known: dict[NearLimit, tuple[date, int]] = {}
        """The day of the last admission that met it, and the threshold."""

    def note(self, limit: NearLimit, day: date, threshold: int) -> None:
        """Hear of a limit that an admission met near its end."""
        if limit in self._known or len(self._known) < MOST_KNOWN:
            self._known[limit] = (day, threshold)

    def shares(self, today: date, used: Callable[[NearLimit, date], int]) -> dict[tuple[str, str, str, str], float]:
        """Return how much of each is used: 1 is all, a threshold of 0 is used up. `used` gives the sum of a period."""
        found: dict[NearLimit, float] = {}
        for limit, (day, threshold) in list(self._known.items()):
            is_over = day < (today if limit.unit is UsageLimitUnit.DAY else month_of(today))
            share = used(limit, day) / threshold if threshold else 1.0
            if is_over or share < NEAR:
                del self._known[limit]
            else:
                found[limit] = share
        fullest = nlargest(MOST_SHOWN, found, key=found.__getitem__)
        return {(each.group, each.slug, each.type.value, each.unit.value): found[each] for each in fullest}
