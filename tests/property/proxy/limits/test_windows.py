"""Rate windows against an exact log, and against a slow obvious implementation. Times in microseconds."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from domain import amounts
from proxy.limits.windows import LimitStanding, RateWindows, Refusal, Reservation, WindowLimit
from schemas.limits import LimitType, RateLimitUnit

SLUG = "lab/model"
UNIT_US = {RateLimitUnit.SECOND: 1_000_000, RateLimitUnit.MINUTE: 60_000_000}
EPOCH_US = 1_700_000_000_000_000

units = st.sampled_from(list(UNIT_US))
starts = st.sampled_from([0, 7_000_000_123, EPOCH_US]).flatmap(lambda base: st.integers(base, base + 60_000_000))


def steps(unit_us: int) -> st.SearchStrategy[int]:
    """Waits that like the edges: whole sub-buckets and units, give or take a microsecond."""
    width = unit_us // 20
    edges = st.builds(lambda k, off: max(0, k * width + off), st.integers(0, 42), st.integers(-1, 1))
    return st.one_of(st.just(0), st.integers(0, width), st.integers(0, 2 * unit_us), edges)


def seconds(now_us: int) -> float:
    return now_us / 1_000_000


RATED = [type_ for type_ in LimitType if type_ is not LimitType.COST]


def amount_of(type_: LimitType, tokens: int, output: int) -> int:
    """Return what a request takes from a limit of this type."""
    amounts = {LimitType.REQUEST: 1, LimitType.TOKEN: tokens, LimitType.OUTPUT_TOKEN: output}
    return amounts.get(type_, tokens - output)


def request_limit(unit: RateLimitUnit, threshold: int, group: str = "g") -> WindowLimit:
    return WindowLimit(LimitType.REQUEST, unit, threshold, "source", group)


@given(st.data(), units, starts, st.integers(1, 6))
def test_requests_against_an_exact_log(data: st.DataObject, unit: RateLimitUnit, now_us: int, threshold: int) -> None:
    unit_us, width = UNIT_US[unit], UNIT_US[unit] // 20
    windows, limit = RateWindows(), request_limit(unit, threshold)
    log: list[int] = []
    now_us -= now_us % width * data.draw(st.integers(0, 1))  # half of the runs begin with a sub-bucket
    for step in data.draw(st.lists(steps(unit_us), max_size=40)):
        now_us += step
        outcome = windows.reserve(SLUG, [limit], 0, seconds(now_us))
        if isinstance(outcome, Reservation):
            log.append(now_us)
            assert sum(now_us - unit_us < at for at in log) <= threshold  # the real window that ends here
        else:
            exact_us = log[-threshold] + unit_us  # when an exact log admits
            assert now_us < exact_us
            assert outcome.retry_after_ms == -((now_us - exact_us) // 1000)


@given(st.data(), units, starts, st.integers(1001, 1003))
def test_many_requests_against_an_exact_log(
    data: st.DataObject, unit: RateLimitUnit, now_us: int, threshold: int
) -> None:
    unit_us, width = UNIT_US[unit], UNIT_US[unit] // 20
    windows, limit = RateWindows(), request_limit(unit, threshold)
    log: list[int] = []
    for step, burst in data.draw(st.lists(st.tuples(steps(unit_us), st.integers(1, 600)), max_size=8)):
        now_us += step
        for _ in range(burst):
            outcome = windows.reserve(SLUG, [limit], 0, seconds(now_us))
            if isinstance(outcome, Reservation):
                log.append(now_us)
                continue
            exact_us = log[-threshold] + unit_us
            assert now_us < exact_us + width
            assert outcome.retry_after_ms <= -((now_us - exact_us - width) // 1000)
            break
        assert sum(now_us - unit_us < at for at in log) <= threshold


@given(st.data(), units, starts)
def test_a_threshold_that_changes_at_will_lets_no_window_hold_more(
    data: st.DataObject, unit: RateLimitUnit, now_us: int
) -> None:
    windows, unit_us = RateWindows(), UNIT_US[unit]
    log: list[int] = []
    for step in data.draw(st.lists(steps(unit_us), max_size=40)):
        now_us += step
        threshold = data.draw(st.sampled_from([1, 3, 5, 1001]))
        held = sum(now_us - unit_us < at for at in log)
        if isinstance(windows.reserve(SLUG, [request_limit(unit, threshold)], 0, seconds(now_us)), Reservation):
            assert held < threshold
            log.append(now_us)


@given(st.data(), units, st.floats(0, 2e9), st.integers(1, 5))
def test_a_retry_exactly_at_retry_after_gets_in(
    data: st.DataObject, unit: RateLimitUnit, now: float, threshold: int
) -> None:
    now = round(now, 6)  # our clocks' resolution
    windows = RateWindows()
    others = st.builds(WindowLimit, st.sampled_from(RATED), units, st.integers(1, 40), st.just("source"), st.just("p"))
    limits = [
        request_limit(unit, threshold),
        *data.draw(st.lists(others, max_size=3, unique_by=lambda o: (o.type, o.unit))),
    ]
    waits = st.floats(0, 3, allow_subnormal=False)
    for _ in range(100):
        tokens = data.draw(st.integers(0, 30))
        outcome = windows.reserve(SLUG, limits, tokens, now)
        if isinstance(outcome, Refusal):
            now += outcome.retry_after_ms / 1000
            assert isinstance(windows.reserve(SLUG, limits, 5, now), Reservation)
            return
        windows.settle(outcome, tokens, now)
        now = round(now + data.draw(waits) * UNIT_US[unit] / 60_000_000, 6)


def test_a_retry_exactly_at_retry_after_gets_in_a_hundred_times_of_a_hundred() -> None:
    windows = RateWindows()
    limits = [request_limit(RateLimitUnit.SECOND, 3), request_limit(RateLimitUnit.MINUTE, 120, "parent")]
    now_us, refused = EPOCH_US + 12_345, 0
    while refused < 100:
        outcome = windows.reserve(SLUG, limits, 0, seconds(now_us))
        if isinstance(outcome, Refusal):
            refused += 1
            now_us += outcome.retry_after_ms * 1000
            assert isinstance(windows.reserve(SLUG, limits, 0, seconds(now_us)), Reservation)
        now_us += 7_919  # some odd way on


@dataclass
class Obvious:
    """One TOKEN window as a list of (sub-bucket, amount), summed anew each time."""

    width: int
    entries: list[tuple[int, int]] = field(default_factory=list)

    def counted(self, now_us: int) -> int:
        return sum(amount for bucket, amount in self.entries if bucket > now_us // self.width - 21)

    def held(self, type_: LimitType, flying: list[tuple[Reservation, int]], now_us: int) -> int:
        """Return what of it requests in flight have reserved."""
        counting = [each for each, at in flying if at // self.width > now_us // self.width - 21]
        return sum(each.reserved[amounts.PLACE[type_]] for each in counting)

    def settle(self, admitted_us: int, difference: int, now_us: int) -> None:
        if admitted_us // self.width > now_us // self.width - 21:
            self.entries.append((admitted_us // self.width, difference))
        elif difference > 0:
            self.entries.append((now_us // self.width, difference))


of_tokens = st.sampled_from([LimitType.TOKEN, LimitType.INPUT_TOKEN, LimitType.OUTPUT_TOKEN])


@settings(max_examples=200)
@given(st.data(), of_tokens, units, starts, st.integers(1, 200))
def test_tokens_against_the_obvious_implementation(
    data: st.DataObject, type_: LimitType, unit: RateLimitUnit, now_us: int, threshold: int
) -> None:
    windows, limit = RateWindows(), WindowLimit(type_, unit, threshold, "source", "g")
    model, latest_us = Obvious(UNIT_US[unit] // 20), 0
    flying: list[tuple[Reservation, int]] = []
    for _ in range(data.draw(st.integers(0, 30))):
        now_us += data.draw(st.one_of(steps(UNIT_US[unit]), st.integers(-UNIT_US[unit], 0)))
        now_us = max(0, now_us)
        latest_us = max(latest_us, now_us)
        action = data.draw(st.sampled_from(["reserve", "settle", "release", "forget"]))
        if action == "reserve":
            estimate, counted = data.draw(st.integers(0, 100)), model.counted(latest_us)
            output = data.draw(st.integers(0, estimate))
            outcome = windows.reserve(SLUG, [limit], estimate, seconds(now_us), output)
            assert isinstance(outcome, Reservation) == (counted < threshold)
            assert outcome.standings == windows.standings(SLUG, [limit], seconds(now_us))
            held = model.held(type_, flying, latest_us)
            if isinstance(outcome, Refusal) and counted - held < threshold:  # it rests on reservations
                assert outcome.retry_after_ms <= 1000 - (now_us - latest_us) // 1000
            if isinstance(outcome, Reservation):
                model.entries.append((latest_us // model.width, amount_of(type_, estimate, output)))
                flying.append((outcome, latest_us))
        elif action == "forget":
            windows.forget_idle(seconds(now_us))
        elif flying:
            reservation, admitted_us = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
            used = data.draw(st.integers(0, 200)) if action == "settle" else 0
            output = data.draw(st.integers(0, used))
            estimated = reservation.reserved[amounts.PLACE[type_]]
            model.settle(admitted_us, amount_of(type_, used, output) - estimated, latest_us)
            if action == "settle":
                windows.settle(reservation, used, seconds(now_us), output)
            else:
                windows.release(reservation, seconds(now_us))
        (standing,) = windows.standings(SLUG, [limit], seconds(now_us))
        assert standing.remaining == max(0, threshold - model.counted(latest_us))
        _check_reset(standing, model, now_us, latest_us)
        assert all(amount >= 0 for counter in windows._counters.values() for amount in counter.buckets)


def _check_reset(standing: LimitStanding, model: Obvious, now_us: int, latest_us: int) -> None:
    reset_us = now_us + round(standing.reset_s * 1_000_000)
    if model.counted(latest_us) == 0:
        assert standing.reset_s == 0
    else:
        assert model.counted(reset_us) == 0
        assert model.counted(reset_us - 1) > 0


@given(st.data(), units, starts, st.integers(1, 300))
def test_tokens_overshoot_by_at_most_one_request_where_estimates_are_upper_bounds(
    data: st.DataObject, unit: RateLimitUnit, now_us: int, threshold: int
) -> None:
    windows, limit = RateWindows(), WindowLimit(LimitType.TOKEN, unit, threshold, "source", "g")
    used: dict[int, tuple[int, int]] = {}
    flying: dict[int, Reservation] = {}
    for number in range(data.draw(st.integers(1, 30))):
        now_us += data.draw(steps(UNIT_US[unit]))
        estimate = data.draw(st.integers(0, 100))
        outcome = windows.reserve(SLUG, [limit], estimate, seconds(now_us))
        if isinstance(outcome, Reservation):
            before = sum(tokens for at, tokens in used.values() if at > now_us - UNIT_US[unit])
            assert before < threshold
            flying[number] = outcome
            used[number] = (now_us, data.draw(st.integers(0, estimate)))
        for done in data.draw(st.sets(st.sampled_from(sorted(flying)))) if flying else ():
            windows.settle(flying.pop(done), used[done][1], seconds(now_us))


@given(st.data(), starts)
def test_a_request_takes_from_each_limit_alone_or_from_none(data: st.DataObject, now_us: int) -> None:
    windows = RateWindows()
    kinds = st.tuples(st.sampled_from(RATED), units, st.integers(1, 4))
    limits = [
        WindowLimit(type_, unit, threshold * (1 if type_ is LimitType.REQUEST else 20), "source", group)
        for group, (type_, unit, threshold) in zip(
            "abcde", data.draw(st.lists(kinds, min_size=5, max_size=5)), strict=True
        )
    ]
    for _ in range(data.draw(st.integers(1, 20))):
        now_us += data.draw(steps(1_000_000))
        before = [windows.standings(SLUG, [limit], seconds(now_us)) for limit in limits]
        tokens = data.draw(st.integers(1, 30))
        output = data.draw(st.integers(0, tokens))
        outcome = windows.reserve(SLUG, limits, tokens, seconds(now_us), output)
        after = [windows.standings(SLUG, [limit], seconds(now_us)) for limit in limits]
        full = [limit for limit, (standing,) in zip(limits, before, strict=True) if standing.remaining == 0]
        if isinstance(outcome, Refusal):
            assert outcome.limit in full
            shown = {standing.limit for standing in outcome.standings}
            assert outcome.limit in shown
            assert after == before
        else:
            assert not full
            for limit, (old,), (new,) in zip(limits, before, after, strict=True):
                assert new.remaining == max(0, old.remaining - amount_of(limit.type, tokens, output))
