"""What proxies tell each other near a limit: what each has in flight, or ended and not counted yet (counting 6).

Never adds anything to a total: what others told stands beside the sum, and is void soon after it was heard.

Rules, by the limits that admissions met:

- Told of is a counter above NEAR of a threshold, or any where some lane's owner has told nothing for SILENT_S; and what
  is worth telling is WORTH of what is left of the limit.
- It is told when it has changed, and each REPEAT_S all the same; what is no longer worth it is told a last time, as 0.
- At most MOST counters a turn, the largest first.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from domain import amounts
from schemas.limits import LimitType, UsageLimitUnit

TELL_EVERY_S = 0.2
REPEAT_S = 1.0
VOID_S = 2.0
MOST = 40
NEAR = 0.9
SILENT_S = 60.0
WORTH = 0.001
MOST_KNOWN = 100_000
"""Counters that are looked at, and amounts of others that are kept."""


class CounterKey(NamedTuple):
    """A counter: a group, a slug (`*`: the sum over all of them) and a UTC day, which counts for its month too."""

    group: str
    slug: str
    day: date


class Amounts(NamedTuple):
    """Requests and tokens, of which `output_tokens` are the answers', and what they cost (`domain.amounts`)."""

    requests: int = 0
    tokens: int = 0
    output_tokens: int = 0
    cost: int = 0

    def of(self, type_: LimitType) -> int:
        """Return what of it counts against a limit of this type."""
        return amounts.counted(type_, *self)


NOTHING = Amounts()


class Seen(NamedTuple):
    """A counter's whole sums, what others told included; and what of the day's is this proxy's and not counted."""

    sums: Mapping[UsageLimitUnit, Amounts]
    own: Amounts


@dataclass(slots=True)
class _Watched:
    thresholds: dict[tuple[LimitType, UsageLimitUnit], int] = field(default_factory=dict)
    told: Amounts = NOTHING
    told_s: float = float("-inf")


class Telling:
    """What this proxy is to tell."""

    def __init__(self) -> None:
        self._watched: dict[CounterKey, _Watched] = {}

    def note(self, key: CounterKey, type_: LimitType, unit: UsageLimitUnit, threshold: int) -> None:
        """Hear of a limit on a counter's day or month that an admission met, of which enough is used."""
        watched = self._watched.get(key)
        if watched is None:
            if len(self._watched) >= MOST_KNOWN:
                return
            watched = self._watched[key] = _Watched()
        watched.thresholds[type_, unit] = threshold

    def due(self, now_s: float, look: Callable[[CounterKey], Seen]) -> list[tuple[CounterKey, Amounts]]:
        """Return what is to be told now, and take it for told; what has no more to tell is forgotten."""
        found: list[tuple[int, CounterKey, _Watched, Amounts]] = []
        for key, watched in list(self._watched.items()):
            seen = look(key)
            own = seen.own if _is_worth(seen, watched) else NOTHING
            if own == NOTHING and watched.told == NOTHING:
                if not any(seen.own):
                    del self._watched[key]
            elif own != watched.told or now_s - watched.told_s >= REPEAT_S:
                found.append((max(own), key, watched, own))
        found.sort(key=lambda one: -one[0])
        for _, _, watched, own in found[:MOST]:
            watched.told, watched.told_s = own, now_s
        return [(key, own) for _, key, _, own in found[:MOST]]


def _is_worth(seen: Seen, watched: _Watched) -> bool:
    """Whether some limit has so little left that what this proxy has is WORTH of it."""
    for (type_, unit), threshold in watched.thresholds.items():
        left = max(0, threshold - seen.sums[unit].of(type_))
        own = seen.own.of(type_)
        if own > 0 and own >= left * WORTH:
            return True
    return False


class Heard:
    """What the other proxies told, each word for VOID_S."""

    def __init__(self) -> None:
        self._words: dict[CounterKey, dict[str, tuple[Amounts, float]]] = {}

    def take(self, key: CounterKey, instance: str, told: Amounts, now_s: float) -> None:
        """Take what one proxy tells of a counter; it replaces what that one told before."""
        words = self._words.get(key)
        if told == NOTHING:
            if words is not None:
                words.pop(instance, None)
                self._tidy(key)
        elif words is not None:
            words[instance] = (told, now_s)
        elif len(self._words) < MOST_KNOWN:
            self._words[key] = {instance: (told, now_s)}

    def expire(self, now_s: float) -> list[CounterKey]:
        """Drop what was heard too long ago; return the counters that it was of."""
        old = [
            (key, instance)
            for key, words in self._words.items()
            for instance, (_, heard_s) in words.items()
            if now_s - heard_s >= VOID_S
        ]
        for key, instance in old:
            del self._words[key][instance]
            self._tidy(key)
        return list(dict.fromkeys(key for key, _ in old))

    def sum(self, key: CounterKey) -> Amounts:
        """Return the sum of what others told of a counter and is not void."""
        return added(told for told, _ in self._words.get(key, {}).values())

    def _tidy(self, key: CounterKey) -> None:
        if not self._words.get(key, True):
            del self._words[key]


def added(some: Iterable[Amounts]) -> Amounts:
    """Add them up."""
    return Amounts(*map(sum, zip(*some, strict=True))) if (some := list(some)) else NOTHING
