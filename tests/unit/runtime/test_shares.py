"""One bounded thing, shared: no holder takes it all, and what is given back is there again."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.shares import Excess, Rates, Shares


def test_a_holder_takes_its_share_and_the_others_still_have_theirs() -> None:
    shares = Shares(100, 0.25)
    assert [shares.take("a", 20), shares.take("a", 5), shares.take("a")] == [None, None, Excess.OWN]
    assert [shares.take(name, 25) for name in "bcd"] == [None, None, None]
    assert shares.take("e") is Excess.WHOLE
    shares.give_back("a", 5)
    assert (shares.take("e", 6), shares.take("e", 5)) == (Excess.WHOLE, None)
    assert (shares.held("a"), shares.held("e"), shares.taken) == (20, 5, 100)


def test_the_smallest_share_is_one_and_of_nothing_there_is_none() -> None:
    assert [Shares(2, 0.01).take("a", size) for size in (1, 2)] == [None, Excess.OWN]
    assert Shares(0).take("a") is Excess.WHOLE
    assert [Shares(2).take("a", size) for size in (2, 3)] == [None, Excess.WHOLE]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60)), max_size=40))
def test_what_is_held_is_what_was_taken_and_stays_within_both_bounds(taken: list[tuple[str, int]]) -> None:
    shares = Shares(100, 0.5)
    held = [(holder, amount) for holder, amount in taken if shares.take(holder, amount) is None]
    assert shares.taken == sum(amount for _, amount in held) <= 100
    assert all(sum(amount for each, amount in held if each == holder) <= 50 for holder in "abc")
    for holder, amount in held:
        shares.give_back(holder, amount)
    assert (shares.taken, [shares.held(holder) for holder in "abc"]) == (0, [0, 0, 0])


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_rate_refills_with_time_up_to_its_burst_for_each_holder_alone() -> None:
    clock = Clock()
    rates = Rates(10, 20, clock)
    rates.use("a", 20)
    assert (rates.has("a", 1), rates.has("b", 20)) == (False, True)
    clock.now_s += 0.5
    assert (rates.has("a", 5), rates.has("a", 6)) == (True, False)
    clock.now_s += 100
    assert (rates.has("a", 20), rates.has("a", 21)) == (True, True), "more than the burst waits for all of it"
    rates.use("a", 30)
    clock.now_s += 1
    assert not rates.has("a", 1)


def test_rates_forget_who_used_none_for_longest() -> None:
    rates = Rates(1, 1, Clock(), most_holders=2)
    for holder in ("a", "b", "a", "c"):
        rates.use(holder, 1)
    assert (len(rates), [rates.has(holder, 1) for holder in "abc"]) == (2, [False, True, False])
