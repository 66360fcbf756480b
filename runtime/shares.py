"""How much of one bounded thing is taken, over all and by each holder, so that no holder can take it all.

Costs an integer comparison or two and a look into a dictionary, which holds those alone who hold something.
"""

from collections.abc import Callable
from enum import Enum


class Excess(Enum):
    """Which bound is reached."""

    OWN = "own"
    """The holder's share."""
    WHOLE = "whole"
    """What all holders together may take."""


class Shares:
    """One bounded thing, in units of the caller's choice. A holder may take `share` of `most`, and at least 1.

    Where one may take all, there is no share to exceed: it is the whole that is reached.
    """

    def __init__(self, most: int, share: float = 1.0) -> None:
        self.most = most
        self.most_of_one = max(1, int(most * share))
        self.taken = 0
        self._held: dict[str, int] = {}

    def held(self, holder: str) -> int:
        """Return what one holder has."""
        return self._held.get(holder, 0)

    def take(self, holder: str, amount: int = 1) -> Excess | None:
        """Take some; where there is not that much, return which bound is reached, and take nothing."""
        held = self._held.get(holder, 0) + amount
        if held > self.most_of_one < self.most:
            return Excess.OWN
        if self.taken + amount > self.most:
            return Excess.WHOLE
        self._held[holder] = held
        self.taken += amount
        return None

    def give_back(self, holder: str, amount: int = 1) -> None:
        """Give back what was taken."""
        self.taken -= amount
        left = self._held.get(holder, 0) - amount
        if left:
            self._held[holder] = left
        else:
            self._held.pop(holder, None)


class Rates:
    """How many units a second each holder may use, each beginning with a `burst`: token buckets on one clock.

    Whoever asks for more than the burst waits until all of it is there, so that nothing is refused for ever.
    """

    def __init__(self, per_s: float, burst: float, now_s: Callable[[], float], most_holders: int = 10_000) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now_s = now_s
        self._most_holders = most_holders
        self._levels: dict[str, tuple[float, float]] = {}
        """What is left, and when that was so; the holder who used some last is the last."""

    def __len__(self) -> int:
        return len(self._levels)

    def has(self, holder: str, amount: float) -> bool:
        """Say whether a holder may use so much now."""
        return self._level(holder) >= min(amount, self._burst)

    def use(self, holder: str, amount: float) -> None:
        """Take it from what the holder has."""
        level = self._level(holder)
        self._levels.pop(holder, None)
        self._levels[holder] = (level - amount, self._now_s())
        if len(self._levels) > self._most_holders:  # who has used none for longest has all of it again, or nearly
            del self._levels[next(iter(self._levels))]

    def _level(self, holder: str) -> float:
        level, at_s = self._levels.get(holder, (self._burst, 0.0))
        return min(self._burst, level + (self._now_s() - at_s) * self._per_s)
