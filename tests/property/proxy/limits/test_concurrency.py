"""Requests in flight against a slow exact model, along trees whose limits cascade and whose thresholds change."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.concurrency import Concurrency, HeldPlaces
from proxy.limits.windows import Refusal, WindowLimit
from schemas.limits import LimitType, RateLimitUnit

SLUGS = ("lab/a", "lab/b")
GROUPS = ("leaf", "middle", "root")


def limits() -> st.SearchStrategy[list[WindowLimit]]:
    """Return at most one limit of each counting group, the closest first, whoever has set it."""
    one = st.builds(
        WindowLimit,
        st.just(LimitType.REQUEST),
        st.just(RateLimitUnit.CONCURRENT),
        st.integers(0, 3),
        st.sampled_from(GROUPS),
        st.sampled_from(GROUPS),
    )
    return st.lists(one, max_size=3, unique_by=lambda limit: limit.counting_group)


@dataclass
class Held:
    """An admitted request."""

    slug: str
    limits: list[WindowLimit]
    places: HeldPlaces

    def counts_for(self, slug: str, group: str) -> bool:
        return self.slug == slug and any(limit.counting_group == group for limit in self.limits)


STEPS = st.one_of(
    st.tuples(st.just("reserve"), st.sampled_from(SLUGS), limits()),
    st.tuples(st.just("end"), st.integers(0, 9), st.booleans()),
)


@given(st.lists(STEPS, max_size=60))
def test_requests_in_flight_against_a_slow_exact_model(
    steps: list[tuple[str, str | int, list[WindowLimit] | bool]],
) -> None:
    kept = Concurrency()
    held: list[Held] = []
    for what, which, given_ in steps:
        if isinstance(which, str) and isinstance(given_, list):
            full = [
                limit
                for limit in given_
                if sum(each.counts_for(which, limit.counting_group) for each in held) >= limit.threshold
            ]
            outcome = kept.reserve(which, given_)
            if full:
                assert outcome == Refusal(full[0], 1000, ())
            else:
                assert isinstance(outcome, list)
                held.append(Held(which, given_, outcome))
        elif held and isinstance(which, int):
            gone = held.pop(which % len(held))
            kept.release(gone.places)
            if given_:
                kept.release(gone.places)  # the second time it is ignored
        assert what in {"reserve", "end"}
    places = {(each.slug, limit.counting_group) for each in held for limit in each.limits}
    assert len(kept) == len(places)
    for each in held:
        kept.release(each.places)
    assert len(kept) == 0
