from datetime import date
from decimal import Decimal

import pytest

from domain import money
from domain.money import PriceBook
from schemas.money import Price

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
    assert money.cost(price(), 1, 1_000_000, 400_000, 500_000) == Decimal("0.6") + Decimal("0.2") + 1
    assert money.cost(price(request="0.01"), 3, 0, 0, 0) == Decimal("0.03")


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
    assert str(money.rounded(Decimal(amount), currency)) == shown


def test_the_greatest_counts_and_prices_stay_exact() -> None:
    greatest = price(output="999999999999.999999999999")
    exact = (2**63 - 1) * (10**24 - 1)
    assert money.cost(greatest, 0, 0, 0, 2**63 - 1).as_tuple().digits == tuple(map(int, str(exact)))
