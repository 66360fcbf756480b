"""One counter of day limits: what metering told of it, the rows spooled here that are not in that, what is in flight.

Never counts a row twice once its offset is known, and never misses one.

A lane is a partition of the usage topic; embedded, a spool. Metering tells a counter lane by lane: a part says how much
the lane has counted, and below which offset (`at`). A row's offset is known from the broker's acknowledgement; until
then it is not counted, whatever metering says. What Kafka took twice, because an acknowledgement was lost, is counted
here until metering has passed the second of both: too high for a moment, never too low.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from schemas.decisions import DecisionBySequence
from schemas.limits import LimitType

Lane = int | str
"""A partition of the usage topic; embedded, the instance of a spool."""

Place = tuple[Lane, str]
"""A lane, and the instance of a spool whose rows lie in it."""
_REQUEST = LimitType.REQUEST
NOWHERE = -1
"""Below every offset."""


class Part(NamedTuple):
    """What one lane has counted of a counter, below the lane's offset `at`."""

    version: int
    at: int
    requests: int
    tokens: int


class Row:
    """One spooled request."""

    __slots__ = ("counters", "offset", "sequence", "tokens")

    def __init__(self, sequence: int, tokens: int, offset: int | None = None) -> None:
        self.sequence = sequence
        self.tokens = tokens
        self.offset = offset
        """Where its lane has it, or an offset above that; None: not known yet."""
        self.counters: tuple[Counter, ...] = ()

    def is_below(self, bound: int) -> bool:
        """Whether a lane that is counted below `bound` has counted this row."""
        return self.offset is not None and self.offset < bound


Rows = deque[Row]
"""Those of one lane and one spool, in the order of their sequences, so in that of their offsets."""


def insert(rows: Rows, row: Row) -> bool:
    """Put a row in its place; False where its sequence is there already."""
    if not rows or rows[-1].sequence < row.sequence:
        rows.append(row)
        return True
    place = len(rows)
    while place and rows[place - 1].sequence >= row.sequence:  # rows come in order but for a rare few
        if rows[place - 1].sequence == row.sequence:
            return False
        place -= 1
    rows.insert(place, row)
    return True


class Counter:
    """One (group, slug, day)."""

    __slots__ = ("by_sequence", "in_flight_requests", "in_flight_tokens", "parts", "pending", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        """The whole sum, in flight included."""
        self.in_flight_requests = 0
        self.in_flight_tokens = 0
        self.parts: dict[Lane, Part] = {}
        self.pending: dict[Place, Rows] = {}
        """Rows that the sum holds beside what was told, by lane and spool."""
        self.by_sequence: DecisionBySequence | None = None
        """The word of a metering of the version before; while it holds, `parts` are not in the sum."""

    def refuses(self, type_: LimitType, threshold: int) -> bool:
        """Whether the sum has reached a threshold."""
        return (self.requests if type_ is _REQUEST else self.tokens) >= threshold

    def is_held(self, type_: LimitType, threshold: int) -> bool:
        """Whether a limit that refuses would admit without what is in flight."""
        if type_ is LimitType.REQUEST:
            return self.requests - self.in_flight_requests < threshold
        return self.tokens - self.in_flight_tokens < threshold

    def begin(self, tokens: int) -> None:
        """Add a request in flight and its estimate."""
        self.in_flight_requests += 1
        self.in_flight_tokens += tokens
        self.requests += 1
        self.tokens += tokens

    def end(self, tokens: int) -> None:
        """Take a request that ended out again, with its estimate."""
        self.in_flight_requests -= 1
        self.in_flight_tokens -= tokens
        self.requests -= 1
        self.tokens -= tokens

    def add_row(self, place: Place, row: Row, whole: int) -> None:
        """Add a spooled row that what was told does not hold; `whole` is its lane's."""
        told = self.by_sequence
        if told is not None:
            if told.counted.get(place[1], 0) >= row.sequence:
                return
        elif row.offset is not None and row.offset < self._bound(place[0], whole):
            return
        rows = self.pending.get(place)
        if rows is None:
            rows = self.pending[place] = deque()
        if insert(rows, row):
            self.requests += 1
            self.tokens += row.tokens

    def take_part(self, lane: Lane, part: Part, whole: int) -> None:
        """Take a lane's newest word; of several the one with the highest (version, at) is the newest."""
        known = self.parts.get(lane)
        if known is not None and part[:2] < known[:2]:
            return
        self.parts[lane] = part
        if self.by_sequence is not None:
            return
        self._add(part.requests, part.tokens)
        if known is not None:
            self._add(-known.requests, -known.tokens)
        self.drop(lane, whole)

    def take_by_sequence(self, told: DecisionBySequence) -> None:
        """Take the word of a metering of the version before, where no lane has told of this counter yet."""
        known = self.by_sequence
        if self.parts and known is None:
            return
        if known is not None and told.version < known.version:
            return
        if known is not None:
            self._add(-known.requests, -known.tokens)
            if told.version == known.version:  # duplicates may have moved the marks
                told = told.model_copy(update={"counted": _highest(known.counted, told.counted)})
        self.by_sequence = told
        self._add(told.requests, told.tokens)
        for (lane, instance), rows in list(self.pending.items()):
            mark = told.counted.get(instance, 0)
            while rows and rows[0].sequence <= mark:
                self._add(-1, -rows.popleft().tokens)
            if not rows:
                del self.pending[lane, instance]

    def go_by_parts(self, wholes: Mapping[Lane, int]) -> None:
        """Leave the version before: from now on the sum holds what lanes told."""
        told, self.by_sequence = self.by_sequence, None
        if told is None:
            return
        self._add(-told.requests, -told.tokens)
        for part in self.parts.values():
            self._add(part.requests, part.tokens)
        for lane in {lane for lane, _ in self.pending}:
            self.drop(lane, wholes.get(lane, NOWHERE))

    def drop(self, lane: Lane, whole: int) -> None:
        """Take out the rows that a lane has counted; `whole` is the lane's."""
        if self.by_sequence is not None:
            return
        bound = self._bound(lane, whole)
        for place in [place for place in self.pending if place[0] == lane]:
            rows = self.pending[place]
            while rows and rows[0].is_below(bound):
                self._add(-1, -rows.popleft().tokens)
            if not rows:
                del self.pending[place]

    def _bound(self, lane: Lane, whole: int) -> int:
        part = self.parts.get(lane)
        return whole if part is None else max(part.at, whole)

    def _add(self, requests: int, tokens: int) -> None:
        self.requests += requests
        self.tokens += tokens


def _highest(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {name: max(first.get(name, 0), second.get(name, 0)) for name in first.keys() | second.keys()}
