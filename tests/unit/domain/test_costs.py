from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import costs
from domain.costs import PriceBook
from schemas.money import Price
from schemas.usage import MOST_COST, MOST_TOKENS

DAY = date(2026, 11, 10)


def price(from_: str = "2026-01-01", customer: str | None = None, **rates: str) -> Price:
    given = {"input": "1", "cached_input": "0.5", "output": "2", "request": "0"} | rates
    return Price(slug="a/m", external_entity_id=customer, currency="EUR", **{"from": from_}, **given)


def test_a_customers_own_price_goes_before_a_newer_one_of_everyone() -> None:
    own, everyones = price("2026-01-01", "cust", input="7"), price("2026-11-01")
    book = PriceBook([everyones, own])
    assert book.find("a/m", "cust", DAY) is own
    assert book.find("a/m", "another", DAY) is everyones


def test_a_price_holds_from_its_first_day_on_until_a_newer_one_begins() -> None:
    old, new = price("2026-11-02"), price("2026-11-10")
    book = PriceBook([new, old])
    assert [book.find("a/m", "c", date(2026, 11, day)) for day in (1, 2, 9, 10)] == [None, old, old, new]
    assert book.find("a/other", "c", DAY) is None


def test_cached_input_is_part_of_input_and_has_its_own_price() -> None:
    assert costs.cost(price(), 1, 1_000_000, 400_000, 500_000) == Decimal("0.6") + Decimal("0.2") + 1
    assert costs.cost(price(request="0.01"), 3, 0, 0, 0) == Decimal("0.03")


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("0.125", "EUR", "0.12"),
        ("0.135", "EUR", "0.14"),
        ("-0.125", "USD", "-0.12"),
        ("2.5", "JPY", "2"),
        ("0.0005", "KWD", "0.000"),
        ("0.0015", "KWD", "0.002"),
    ],
)
def test_rounding_is_half_even_to_the_minor_unit(amount: str, currency: str, shown: str) -> None:
    assert str(costs.rounded(Decimal(amount), currency)) == shown


def test_the_greatest_counts_and_prices_stay_exact() -> None:
    greatest = price(output="999999999999.999999999999")
    exact = (2**63 - 1) * (10**24 - 1)
    assert costs.cost(greatest, 0, 0, 0, 2**63 - 1).as_tuple().digits == tuple(map(int, str(exact)))


def test_one_event_costs_whole_millionths_of_a_minor_unit_rounded_half_even() -> None:
    unit = costs.unit_cost(price(input="0.02", cached_input="0", output="0.000000000001", request="0.0000000125"))
    assert unit.of(1, 5, 0, 0) == 11, "1.25 + 10 millionths of a cent"
    assert [unit.of(0, one, 0, 0) for one in (1, 2)] == [2, 4]
    assert unit.of(2, 0, 0, 0) == 2, "2.5 goes to the even one"
    assert unit.of(6, 0, 0, 0) == 8, "7.5 as well"
    yen = costs.unit_cost(price(input="3", output="0", request="0").model_copy(update={"currency": "JPY"}))
    assert yen.of(1, 1_000_000, 0, 0) == 3_000_000


@given(
    st.lists(st.decimals(0, 10**12 - 1, places=12), min_size=4, max_size=4),
    st.tuples(st.integers(0, 9), st.integers(0, MOST_TOKENS), st.integers(0, MOST_TOKENS), st.floats(0, 1)),
    st.sampled_from(["EUR", "JPY", "KWD"]),
)
def test_a_cost_in_whole_numbers_is_the_exact_one_rounded(
    rates: list[Decimal], used: tuple[int, int, int, float], currency: str
) -> None:
    names = ("input", "cached_input", "output", "request")
    given_price = price(**{name: f"{rate:f}" for name, rate in zip(names, rates, strict=True)})
    given_price = given_price.model_copy(update={"currency": currency})
    requests, prompt, output, share = used
    counts = (requests, prompt, int(prompt * share), output)
    minor = {"EUR": 2, "JPY": 0, "KWD": 3}[currency]
    exact = costs.cost(given_price, *counts).scaleb(minor + 6, Context(prec=200))
    rounded = int(exact.quantize(Decimal(1), ROUND_HALF_EVEN, Context(prec=200)))
    assert costs.unit_cost(given_price).of(*counts) == min(rounded, MOST_COST)


def test_a_tariff_follows_the_days_and_has_nothing_where_no_price_has_begun() -> None:
    tariff = costs.Tariff(PriceBook([price("2026-11-10"), price("2026-11-12", input="5")]), "a/m", "c")
    found = [tariff.on(date(2026, 11, day)) for day in (9, 10, 11, 12, 9)]
    assert found == [None, *[costs.unit_cost(price())] * 2, costs.unit_cost(price(input="5")), None]
