"""Decides whether a request's CONCURRENT limits admit it: how many are in flight on this proxy (contract 3.1).

Rules:

- A request is in flight from its admission until its event is durable or it is known that there is none, also after its
  client has gone.
- A limit admits while fewer requests than its threshold hold a place in it; a reservation takes a place in every limit
  or in none.
- Places are kept by (counting group, slug): a changed threshold finds the places that are taken. Requests that were
  admitted while there was no such limit hold none.
"""

from collections.abc import Sequence

from proxy.limits.rolling import RESERVED_WAIT_US
from proxy.limits.windows import Refusal, WindowLimit

HeldPlaces = list[tuple[str, str]]
"""What one request holds; emptied by its release."""

_WAIT_MS = RESERVED_WAIT_US // 1000


def places_of(slug: str, limits: Sequence[WindowLimit]) -> HeldPlaces:
    """Return where a request of `slug` holds places, in the order of its limits."""
    return [(limit.counting_group, limit.counted_slug(slug)) for limit in limits]


def full(limit: WindowLimit) -> Refusal:
    """Return the refusal of a limit whose places are all taken: one may be free at any moment."""
    return Refusal(limit, _WAIT_MS, ())


class Concurrency:
    """The requests in flight of one proxy that a CONCURRENT limit counts."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def reserve(self, slug: str, limits: Sequence[WindowLimit]) -> HeldPlaces | Refusal:
        """Take a place in every limit, or in none: then the refusal names the first that is full."""
        for limit, place in zip(limits, places_of(slug, limits), strict=True):
            if self._taken.get(place, 0) >= limit.threshold:
                return full(limit)
        return self.take(slug, limits)

    def take(self, slug: str, limits: Sequence[WindowLimit]) -> HeldPlaces:
        """Take a place in every limit, full or not: somebody else has judged them."""
        places = places_of(slug, limits)
        for place in places:
            self._taken[place] = self._taken.get(place, 0) + 1
        return places

    def release(self, places: HeldPlaces) -> None:
        """Give the places back, once: what comes later is ignored."""
        while places:
            place = places.pop()
            left = self._taken[place] - 1
            if left:
                self._taken[place] = left
            else:
                del self._taken[place]
