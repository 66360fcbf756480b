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

from domain import amounts
from proxy.limits.in_flight import NOTHING, Amounts, added
from schemas.decisions import DecisionBySequence
from schemas.limits import LimitType

Lane = int | str
"""A partition of the usage topic; embedded, the instance of a spool."""

SpoolLane = tuple[Lane, str]
"""A lane, and the instance of a spool whose rows lie in it."""
NOWHERE = -1
"""Below every offset."""


class LanePart(NamedTuple):
    """What one lane has counted of a counter, below the lane's offset `at`."""

    version: int
    at: int
    requests: int
    tokens: int
    output_tokens: int = 0
    """What of `tokens` are completions."""
    cost: int = 0


class SpooledRow:
    """One spooled request; `output_tokens` are part of `tokens`."""

    __slots__ = ("cost", "counters", "offset", "output_tokens", "sequence", "tokens")

    def __init__(
        self, sequence: int, tokens: int, offset: int | None = None, output_tokens: int = 0, cost: int = 0
    ) -> None:
        self.sequence = sequence
        self.tokens = tokens
        self.output_tokens = output_tokens
        self.cost = cost
        self.offset = offset
        """Where its lane has it, or an offset above that; None: not known yet."""
        self.counters: tuple[DayCounter, ...] = ()

    def is_below(self, bound: int) -> bool:
        """Whether a lane that is counted below `bound` has counted this row."""
        return self.offset is not None and self.offset < bound


Rows = deque[SpooledRow]
"""Those of one lane and one spool, in the order of their sequences, so in that of their offsets."""


def insert(rows: Rows, row: SpooledRow) -> bool:
    """Put a row in its place; False where its sequence is there already."""
    if not rows or rows[-1].sequence < row.sequence:
        rows.append(row)
        return True
    place = len(rows)
    while place and rows[place - 1].sequence >= row.sequence:  # rows come in order except for a rare few
        if rows[place - 1].sequence == row.sequence:
            return False
        place -= 1
    rows.insert(place, row)
    return True


class DayCounter:
    """One (group, slug, day or month); or the sum over all slugs of a group, which only those add to.

    A month has parts and rows of its own: metering tells it as it tells a day. Its days hand it their rows.
    """

    __slots__ = (
        "by_sequence",
        "cost",
        "in_flight_cost",
        "in_flight_output",
        "in_flight_requests",
        "in_flight_tokens",
        "month",
        "others",
        "output_tokens",
        "over_all",
        "parts",
        "pending",
        "requests",
        "tokens",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self.output_tokens = 0
        self.cost = 0
        """The whole sum, in flight included."""
        self.in_flight_requests = 0
        self.in_flight_tokens = 0
        self.in_flight_output = 0
        self.in_flight_cost = 0
        self.parts: dict[Lane, LanePart] = {}
        self.pending: dict[SpoolLane, Rows] = {}
        """Rows that the sum holds beside what was told, by lane and spool."""
        self.by_sequence: DecisionBySequence | None = None
        """What a metering of the version before told; while it holds, `parts` are not in the sum."""
        self.over_all: DayCounter | None = None
        """The sum over all slugs of the group, where a limit asks for it."""
        self.month: DayCounter | None = None
        """The sum of the month that this day lies in, where a limit asks for it, or metering tells of it."""
        self.others: Amounts | None = None
        """What other proxies have of it that no part holds yet; beside the sum, not in it."""

    def used(self, type_: LimitType) -> int:
        """Return the sum as a limit of this type counts it, with what other proxies told."""
        used = amounts.counted(type_, self.requests, self.tokens, self.output_tokens, self.cost)
        return used if self.others is None else used + self.others.of(type_)

    @property
    def sum(self) -> Amounts:
        """The whole sum, with what other proxies told."""
        return added([self._figures(), self.others or NOTHING])

    @property
    def uncounted(self) -> Amounts:
        """What of the sum is in flight here, or spooled here and in nothing that metering told."""
        told = self.by_sequence
        if told is not None:
            return Amounts(self.requests - told.requests, self.tokens - told.tokens, self.output_tokens, self.cost)
        counted = added(Amounts(*part[2:]) for part in self.parts.values())
        return Amounts(*(mine - theirs for mine, theirs in zip(self._figures(), counted, strict=True)))

    def _in_flight(self) -> Amounts:
        return Amounts(self.in_flight_requests, self.in_flight_tokens, self.in_flight_output, self.in_flight_cost)

    def _figures(self) -> Amounts:
        return Amounts(self.requests, self.tokens, self.output_tokens, self.cost)

    def _ended(self) -> Amounts:
        """Return the sum without what is in flight."""
        return Amounts(
            self.requests - self.in_flight_requests,
            self.tokens - self.in_flight_tokens,
            self.output_tokens - self.in_flight_output,
            self.cost - self.in_flight_cost,
        )

    def is_held(self, type_: LimitType, threshold: int) -> bool:
        """Whether a limit that refuses would admit without what is in flight, and what other proxies told."""
        return self._ended().of(type_) < threshold

    def begin(self, tokens: int, output_tokens: int, cost: int = 0) -> None:
        """Add a request in flight and its estimate."""
        self.add_in_flight(1, tokens, output_tokens, cost)

    def end(self, tokens: int, output_tokens: int, cost: int = 0) -> None:
        """Take a request that ended out again, with its estimate."""
        self.add_in_flight(-1, -tokens, -output_tokens, -cost)

    def join(self, over_all: "DayCounter") -> None:
        """Let what counts here count there too, from now on and what is counted already."""
        over_all.add_in_flight(*self._in_flight())
        over_all.add(*self._ended())
        self.over_all = over_all

    def lie_in(self, month: "DayCounter", wholes: Mapping[Lane, int]) -> None:
        """Let what counts here from now on count for the month too, and what metering has not told of it."""
        month.add_in_flight(*self._in_flight())
        for place, rows in self.pending.items():
            for row in rows:
                month.add_row(place, row, wholes.get(place[0], NOWHERE))
        self.month = month

    def add_row(self, place: SpoolLane, row: SpooledRow, whole: int) -> None:
        """Add a spooled row that what was told does not hold; `whole` is its lane's."""
        if self.month is not None:
            self.month.add_row(place, row, whole)
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
            self.add(1, row.tokens, row.output_tokens, row.cost)

    def take_part(self, lane: Lane, part: LanePart, whole: int) -> None:
        """Take a lane's newest part; of several the one with the highest (version, at) is the newest."""
        known = self.parts.get(lane)
        if known is not None and part[:2] < known[:2]:
            return
        self.parts[lane] = part
        if self.by_sequence is not None:
            return
        if known is None:
            self.add(*part[2:])
        else:
            self.add(
                part.requests - known.requests,
                part.tokens - known.tokens,
                part.output_tokens - known.output_tokens,
                part.cost - known.cost,
            )
        if self.pending or self.month is not None:
            self.drop(lane, whole)

    def take_by_sequence(self, told: DecisionBySequence) -> None:
        """Take what a metering of the version before tells, where no lane has told of this counter yet."""
        known = self.by_sequence
        if self.parts and known is None:
            return
        if known is not None and told.version < known.version:
            return
        if known is not None:
            self.add(-known.requests, -known.tokens)
            if told.version == known.version:  # duplicates may have moved the marks
                told = told.model_copy(update={"counted": _highest(known.counted, told.counted)})
        self.by_sequence = told
        self.add(told.requests, told.tokens)
        for (lane, instance), rows in list(self.pending.items()):
            mark = told.counted.get(instance, 0)
            while rows and rows[0].sequence <= mark:
                self._remove(rows.popleft())
            if not rows:
                del self.pending[lane, instance]

    def go_by_parts(self, wholes: Mapping[Lane, int]) -> None:
        """Leave the version before: from now on the sum holds what lanes told."""
        told, self.by_sequence = self.by_sequence, None
        if told is None:
            return
        self.add(-told.requests, -told.tokens)
        for part in self.parts.values():
            self.add(*part[2:])
        for lane in {lane for lane, _ in self.pending}:
            self.drop(lane, wholes.get(lane, NOWHERE))

    def drop(self, lane: Lane, whole: int) -> None:
        """Take out the rows that a lane has counted; `whole` is the lane's."""
        if self.month is not None:
            self.month.drop(lane, whole)
        if self.by_sequence is not None:
            return
        bound = self._bound(lane, whole)
        for place in [place for place in self.pending if place[0] == lane]:
            rows = self.pending[place]
            while rows and rows[0].is_below(bound):
                self._remove(rows.popleft())
            if not rows:
                del self.pending[place]

    def _bound(self, lane: Lane, whole: int) -> int:
        part = self.parts.get(lane)
        return whole if part is None else max(part.at, whole)

    def _remove(self, row: SpooledRow) -> None:
        self.add(-1, -row.tokens, -row.output_tokens, -row.cost)

    def add_in_flight(self, requests: int, tokens: int, output_tokens: int, cost: int = 0) -> None:
        """Add requests in flight and their estimates; or take some out again: then these are negative."""
        self.in_flight_requests += requests
        self.in_flight_tokens += tokens
        self.in_flight_output += output_tokens
        self.requests += requests
        self.tokens += tokens
        self.output_tokens += output_tokens
        if cost:
            self.in_flight_cost += cost
            self.cost += cost
        if self.over_all is not None:
            self.over_all.add_in_flight(requests, tokens, output_tokens, cost)
        if self.month is not None:
            self.month.add_in_flight(requests, tokens, output_tokens, cost)

    def add(self, requests: int, tokens: int, output_tokens: int = 0, cost: int = 0) -> None:
        """Add what has ended in the same way."""
        self.requests += requests
        self.tokens += tokens
        self.output_tokens += output_tokens
        self.cost += cost
        if self.over_all is not None:
            self.over_all.add(requests, tokens, output_tokens, cost)


def _highest(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {name: max(first.get(name, 0), second.get(name, 0)) for name in first.keys() | second.keys()}
