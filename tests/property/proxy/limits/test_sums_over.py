"""Limits over all slugs of a group against a slow exact model that adds up requests one by one.

A tree of two groups, three slugs, two lanes: this proxy's own spool, and another proxy's that is known by what metering
tells alone. Limits come and go in mid-day: what counted before they came counts too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.limits.counters import Part
from proxy.limits.days import DayCounters, DayLimit, DayRefusal, DayReservation
from schemas.limits import LimitType

SLUGS = ("lab/a", "lab/b", "lab/c")
CHILD, ROOT = "child", "root"
WAYS = ((ROOT,), (CHILD, ROOT))
ME, PEER = "me", "peer"
DAY = date(2025, 3, 1)


@dataclass
class Request:
    """One admitted request of some proxy."""

    lane: str
    groups: tuple[str, ...]
    slug: str
    tokens: int
    output: int
    reservation: DayReservation | None = None
    """While it is in flight here."""
    sequence: int | None = None
    is_gone: bool = False

    def amount(self, type_: LimitType) -> int:
        amounts = {LimitType.REQUEST: 1, LimitType.TOKEN: self.tokens, LimitType.OUTPUT_TOKEN: self.output}
        return amounts.get(type_, self.tokens - self.output)


def day_limits() -> st.SearchStrategy[list[DayLimit]]:
    one = st.builds(
        DayLimit,
        st.sampled_from(LimitType),
        st.integers(0, 60),
        st.just("source"),
        st.sampled_from([CHILD, ROOT]),
        over_all=st.booleans(),
    )
    return st.lists(one, max_size=4)


class Sums(RuleBasedStateMachine):
    """Rules are what may happen next; a refusal is judged each time, and the sums after each step."""

    @initialize(limits=day_limits())
    def start(self, limits: list[DayLimit]) -> None:
        self.limits = limits
        self.days = DayCounters(ME, ME)
        self.requests: list[Request] = []
        self.spooled = {ME: 0, PEER: 0}
        self.told: dict[str, int] = {ME: 0, PEER: 0}  # each lane's offset below which all is told here
        self.asked: set[str] = set()  # groups of which the sum over all slugs is kept

    @rule(limits=day_limits())
    def limits_change(self, limits: list[DayLimit]) -> None:
        self.limits = limits

    @rule(way=st.sampled_from(WAYS), slug=st.sampled_from(SLUGS), tokens=st.integers(0, 30), share=st.floats(0, 1))
    def reserve(self, way: tuple[str, ...], slug: str, tokens: int, share: float) -> None:
        limits = [limit for limit in self.limits if limit.counting_group in way]
        full = [limit for limit in limits if self._sum(limit, slug, flying=True) >= limit.threshold]
        used_up = [limit for limit in limits if self._sum(limit, slug, flying=False) >= limit.threshold]
        output = round(tokens * share)
        judged = limits[: limits.index(full[0]) + 1] if full else limits
        self.asked |= {limit.counting_group for limit in judged if limit.over_all}
        outcome = self.days.reserve(DAY, slug, way, limits, tokens, output)
        assert isinstance(outcome, DayRefusal) is bool(full)
        if isinstance(outcome, DayRefusal):
            assert outcome.limit in (used_up or full)
            assert outcome.rests_on_reservations is not bool(used_up)
        else:
            self.requests.append(Request(ME, way, slug, tokens, output, outcome))

    @precondition(lambda self: any(self._flying()))
    @rule(data=st.data(), tokens=st.integers(0, 40), share=st.floats(0, 1), succeeds=st.booleans())
    def end(self, data: st.DataObject, tokens: int, share: float, succeeds: bool) -> None:
        request = data.draw(st.sampled_from(list(self._flying())))
        assert request.reservation is not None
        if succeeds:
            self._spool(request)
            request.tokens, request.output = tokens, round(tokens * share)
            assert request.sequence is not None
            self.days.settle(request.reservation, request.sequence, tokens, request.output)
        else:
            self.days.release(request.reservation)
            request.is_gone = True
        request.reservation = None

    @rule(way=st.sampled_from(WAYS), slug=st.sampled_from(SLUGS), tokens=st.integers(0, 30), share=st.floats(0, 1))
    def a_peer_uses(self, way: tuple[str, ...], slug: str, tokens: int, share: float) -> None:
        self.requests.append(Request(PEER, way, slug, tokens, round(tokens * share)))
        self._spool(self.requests[-1])

    @rule(lane=st.sampled_from([ME, PEER]), data=st.data())
    def metering_tells(self, lane: str, data: st.DataObject) -> None:
        """Tell all that the lane has counted by now, in any order, and that this was all."""
        at = data.draw(st.integers(self.told[lane], self.spooled[lane]))
        for group, slug in data.draw(st.permutations([(group, slug) for group in (CHILD, ROOT) for slug in SLUGS])):
            counted = [
                each
                for each in self.requests
                if each.lane == lane and each.sequence is not None and each.sequence <= at
                if group in each.groups and each.slug == slug
            ]
            if counted:
                tokens, output = sum(each.tokens for each in counted), sum(each.output for each in counted)
                part = Part(len(counted), at + 1, len(counted), tokens, output)
                self.days.take_part(group, slug, DAY, lane, part)
        self.days.take_whole(lane, at + 1)
        self.told[lane] = at

    def _spool(self, request: Request) -> None:
        self.spooled[request.lane] += 1
        request.sequence = self.spooled[request.lane]

    def _flying(self) -> Iterator[Request]:
        return (each for each in self.requests if each.reservation is not None)

    def _sum(self, limit: DayLimit, slug: str, *, flying: bool) -> int:
        return sum(
            each.amount(limit.type)
            for each in self.requests
            if limit.counting_group in each.groups and (limit.over_all or each.slug == slug)
            if not each.is_gone and (flying or each.reservation is None)
            if each.lane == ME or (each.sequence or 0) <= self.told[PEER]
        )

    @invariant()
    def each_sum_holds_each_request_once(self) -> None:
        for group in (CHILD, ROOT):
            for slug in (*SLUGS, "*"):
                limits = [DayLimit(type_, 0, "", group, over_all=slug == "*") for type_ in LimitType]
                requests, tokens, _, _ = (self._sum(limit, slug, flying=True) for limit in limits)
                if slug != "*" or group in self.asked:
                    assert self.days.total(group, slug, DAY) == (requests, tokens)


TestSums = Sums.TestCase
TestSums.settings = settings(max_examples=100, stateful_step_count=30)
