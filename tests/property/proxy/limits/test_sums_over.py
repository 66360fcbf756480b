"""Limits over all slugs of a group, and on months, against a slow exact model that adds up requests one by one.

A tree of two groups, three slugs, two lanes: this proxy's own spool, and another proxy's that is known by what metering
tells alone. Days pass, proxies restart, limits come and go in mid-day: what counted before they came counts too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from domain.costs import UnitCost
from proxy.limits.counters import LanePart, SpooledRow
from proxy.limits.days import DayCounters, DayLimit, DayRefusal
from proxy.limits.reservations import DayReservation
from schemas.limits import LimitType, UsageLimitUnit

SLUGS = ("lab/a", "lab/b", "lab/c")
CHILD, ROOT = "child", "root"
WAYS = ((ROOT,), (CHILD, ROOT))
ME, PEER = "me", "peer"
FIRST = date(2025, 2, 26)
PRICES = {
    "lab/a": UnitCost(300_000, 250_000, 0, 500_001, 1),
    "lab/b": UnitCost(0, 999_999, 0, 7, 2),
    "lab/c": None,
}


@dataclass
class Request:
    """One admitted request of some proxy."""

    lane: str
    day: date
    groups: tuple[str, ...]
    slug: str
    tokens: int
    output: int
    reservation: DayReservation | None = None
    """While it is in flight here."""
    sequence: int | None = None
    is_gone: bool = False

    @property
    def cost(self) -> int:
        price = PRICES[self.slug]
        return 0 if price is None else price.of(1, self.tokens - self.output, 0, self.output)

    def amount(self, type_: LimitType) -> int:
        if type_ is LimitType.COST:
            return self.cost
        amounts = {LimitType.REQUEST: 1, LimitType.TOKEN: self.tokens, LimitType.OUTPUT_TOKEN: self.output}
        return amounts.get(type_, self.tokens - self.output)


PLACES = [(group, slug) for group in (CHILD, ROOT) for slug in SLUGS]


def part_of(counted: Sequence[Request], at: int) -> LanePart:
    """Return what is told of requests that a lane has counted below the offset `at` + 1."""
    tokens, output = sum(each.tokens for each in counted), sum(each.output for each in counted)
    return LanePart(len(counted), at + 1, len(counted), tokens, output, sum(each.cost for each in counted))


def day_limits() -> st.SearchStrategy[list[DayLimit]]:
    one = st.builds(
        DayLimit,
        st.sampled_from(LimitType),
        st.integers(0, 60),
        st.just("source"),
        st.sampled_from([CHILD, ROOT]),
        over_all=st.booleans(),
        unit=st.sampled_from(UsageLimitUnit),
    )
    return st.lists(one, max_size=4)


class Sums(RuleBasedStateMachine):
    """Rules are what may happen next; a refusal is judged each time, and the sums after each step."""

    @initialize(limits=day_limits())
    def start(self, limits: list[DayLimit]) -> None:
        self.limits = limits
        self.day = FIRST
        self.days = DayCounters(ME, ME)
        self.requests: list[Request] = []
        self.spooled = {ME: 0, PEER: 0}
        self.told: dict[str, int] = {ME: 0, PEER: 0}  # each lane's offset below which all is told here
        self.asked: set[str] = set()  # groups of which the sum over all slugs is kept

    @rule(limits=day_limits())
    def limits_change(self, limits: list[DayLimit]) -> None:
        """Change them; what metering has of their months it tells at once."""
        self.limits = limits
        for lane, at in self.told.items():
            self._tell_months(lane, at)

    @rule()
    def a_day_passes(self) -> None:
        self.day += timedelta(days=1)
        self.days.forget(self.day - timedelta(days=2))
        self.asked.clear()

    @rule()
    def kill_and_restart(self) -> None:
        """What was in flight is gone; rows are in the spool, and what metering told in the topic."""
        self.days = DayCounters(ME, ME)
        self.asked.clear()
        for request in list(self._flying()):
            request.reservation, request.is_gone = None, True
        for lane, at in self.told.items():
            for day in {each.day for each in self.requests if each.day >= self.day - timedelta(days=1)}:
                self._tell_day(lane, day, at, PLACES)
            self._tell_months(lane, at)
        for request in self.requests:
            if request.lane == ME and request.sequence is not None:
                row = SpooledRow(request.sequence, request.tokens, request.sequence, request.output, request.cost)
                self.days.restore(request.groups, request.slug, request.day, row, lane=ME, instance=ME)
        for lane, at in self.told.items():
            self.days.take_whole(lane, at + 1)

    @rule(way=st.sampled_from(WAYS), slug=st.sampled_from(SLUGS), tokens=st.integers(0, 30), share=st.floats(0, 1))
    def reserve(self, way: tuple[str, ...], slug: str, tokens: int, share: float) -> None:
        limits = [limit for limit in self.limits if limit.counting_group in way]
        full = [limit for limit in limits if self._sum(limit, slug) >= limit.threshold]
        used_up = [limit for limit in limits if self._sum(limit, slug, flying=False) >= limit.threshold]
        output = round(tokens * share)
        judged = limits[: limits.index(full[0]) + 1] if full else limits
        self.asked |= {limit.counting_group for limit in judged if limit.over_all and limit.unit == "DAY"}
        outcome = self.days.reserve(self.day, slug, way, limits, tokens, output, PRICES[slug])
        assert isinstance(outcome, DayRefusal) is bool(full)
        if isinstance(outcome, DayRefusal):
            assert outcome.limit in (used_up or full)
            if any(limit.unit == "MONTH" for limit in used_up):
                assert outcome.limit.unit == "MONTH", "it lasts longer"
            assert outcome.rests_on_reservations is not bool(used_up)
        else:
            self.requests.append(Request(ME, self.day, way, slug, tokens, output, outcome))

    @precondition(lambda self: any(self._flying()))
    @rule(data=st.data(), tokens=st.integers(0, 40), share=st.floats(0, 1), succeeds=st.booleans())
    def end(self, data: st.DataObject, tokens: int, share: float, succeeds: bool) -> None:
        request = data.draw(st.sampled_from(list(self._flying())))
        assert request.reservation is not None
        if succeeds:
            self._spool(request)
            request.tokens, request.output = tokens, round(tokens * share)
            assert request.sequence is not None
            self.days.settle(request.reservation, request.sequence, tokens, request.output, request.cost)
        else:
            self.days.release(request.reservation)
            request.is_gone = True
        request.reservation = None

    @rule(way=st.sampled_from(WAYS), slug=st.sampled_from(SLUGS), tokens=st.integers(0, 30), share=st.floats(0, 1))
    def a_peer_uses(self, way: tuple[str, ...], slug: str, tokens: int, share: float) -> None:
        self.requests.append(Request(PEER, self.day, way, slug, tokens, round(tokens * share)))
        self._spool(self.requests[-1])

    @rule(lane=st.sampled_from([ME, PEER]), data=st.data())
    def metering_tells(self, lane: str, data: st.DataObject) -> None:
        """Tell all that the lane has counted by now, in any order, and that this was all."""
        at = data.draw(st.integers(self.told[lane], self.spooled[lane]))
        months_first = data.draw(st.booleans())
        if months_first:
            self._tell_months(lane, at)
        for day in {each.day for each in self.requests}:
            self._tell_day(lane, day, at, data.draw(st.permutations(PLACES)))
        if not months_first:
            self._tell_months(lane, at)
        self.days.take_whole(lane, at + 1)
        self.told[lane] = at

    def _tell_day(self, lane: str, day: date, at: int, places: Sequence[tuple[str, str]]) -> None:
        for group, slug in places:
            counted = [each for each in self._counted(lane, at, group, slug) if each.day == day]
            if counted:
                self.days.take_part(group, slug, day, lane, part_of(counted, at))

    def _tell_months(self, lane: str, at: int) -> None:
        """Tell those that a limit asks for, as metering does."""
        for group, slug in PLACES:
            asking = [limit for limit in self.limits if limit.counting_group == group and limit.unit == "MONTH"]
            for month in {each.day.replace(day=1) for each in self.requests}:
                counted = [each for each in self._counted(lane, at, group, slug) if each.day.replace(day=1) == month]
                if counted and asking:
                    self.days.take_month(group, slug, month, lane, part_of(counted, at))

    def _counted(self, lane: str, at: int, group: str, slug: str) -> list[Request]:
        return [
            each
            for each in self.requests
            if each.lane == lane and each.sequence is not None and each.sequence <= at
            if group in each.groups and each.slug == slug
        ]

    def _spool(self, request: Request) -> None:
        self.spooled[request.lane] += 1
        request.sequence = self.spooled[request.lane]

    def _flying(self) -> Iterator[Request]:
        return (each for each in self.requests if each.reservation is not None)

    def _sum(self, limit: DayLimit, slug: str, *, flying: bool = True) -> int:
        summed = sum(
            each.amount(limit.type)
            for each in self.requests
            if limit.counting_group in each.groups and (limit.over_all or each.slug == slug)
            if not each.is_gone and (flying or each.reservation is None)
            if each.day == self.day or (limit.unit == "MONTH" and each.day.replace(day=1) == self.day.replace(day=1))
            if each.lane == ME or (each.sequence or 0) <= self.told[PEER]
        )
        return summed // 1_000_000 if limit.type is LimitType.COST else summed

    @invariant()
    def each_sum_holds_each_request_once(self) -> None:
        for group in (CHILD, ROOT):
            for slug in (*SLUGS, "*"):
                limits = [DayLimit(type_, 0, "", group, over_all=slug == "*") for type_ in LimitType]
                requests, tokens, *_ = (self._sum(limit, slug) for limit in limits)
                if slug != "*" or group in self.asked:
                    assert self.days.total(group, slug, self.day) == (requests, tokens)


TestSums = Sums.TestCase
TestSums.settings = settings(max_examples=100, stateful_step_count=30)
