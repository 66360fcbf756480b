"""Amounts on an invoice, held against fractions worked out by hand, whichever way the use was cut into rows."""

from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control.core import usage_lines
from control.core.usage_lines import GroupOnTheWay
from domain.costs import PriceBook
from metering.core.consumed import Consumed
from metering.core.sums import DailyIncrement
from schemas.money import Dimension, Price

FIRST = date(2026, 11, 1)
SLUG, CUSTOMER, WORKSPACE = "acme/m", "cust", "w"
DAYS = st.integers(0, 29).map(lambda offset: FIRST + timedelta(days=offset))
UNIT_PRICES = st.decimals(0, 10**6, places=6, allow_nan=False).map(lambda price: f"{price:f}")
PRICES = st.builds(
    lambda from_, of_all, **rates: Price(
        slug=SLUG, external_entity_id=None if of_all else CUSTOMER, currency="EUR", **{"from": from_}, **rates
    ),
    DAYS,
    st.booleans(),
    input=UNIT_PRICES,
    cached_input=UNIT_PRICES,
    output=UNIT_PRICES,
    request=UNIT_PRICES,
)
BOOKS = st.lists(PRICES, max_size=5, unique_by=lambda price: (price.from_, price.external_entity_id))
COUNTS = st.integers(0, 10**15)
FIGURES = st.builds(
    lambda requests, uncached, cached, output, corrections, *signed: DailyIncrement(
        requests, uncached + cached, output, cached, corrections, *signed
    ),
    *[COUNTS] * 4,
    st.integers(0, 100),
    *[st.integers(-(10**15), 10**15)] * 2,
)


def row(day: date, figures: DailyIncrement, *place: Any, group_id: str = "g") -> Consumed:
    return Consumed((WORKSPACE, *place), figures, None, SLUG, CUSTOMER, day, group_id)


ROWS = st.lists(st.builds(row, DAYS, FIGURES), max_size=8)


def by_hand(price: Price, used: DailyIncrement) -> Fraction:
    million = Fraction(1, 10**6)
    return (
        Fraction(price.request) * used.requests
        + Fraction(price.input) * (used.input_tokens - used.cached_input_tokens + used.corrected_input_tokens) * million
        + Fraction(price.cached_input) * used.cached_input_tokens * million
        + Fraction(price.output) * (used.output_tokens + used.corrected_output_tokens) * million
    )


def holding(prices: list[Price], day: date) -> Price | None:
    """Return the price of a day: look at each, the customer's own before everyone's, the newest before the older."""
    begun = [price for price in prices if price.from_ <= day]
    return max(begun, key=lambda price: (price.external_entity_id is not None, price.from_), default=None)


def half_even(exact: Fraction) -> Decimal:
    cents, rest = divmod(exact * 100, 1)
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and cents % 2 == 1)
    return Decimal(int(cents) + up).scaleb(-2).quantize(Decimal("0.01"), ROUND_HALF_EVEN)


@given(ROWS, BOOKS)
def test_a_sum_over_all_is_rounded_once_and_is_what_fractions_say(rows: list[Consumed], prices: list[Price]) -> None:
    priced = [(each, price) for each in rows if (price := holding(prices, each.priced_day or FIRST))]
    expected = half_even(sum((by_hand(price, each.figures) for each, price in priced), Fraction()))
    found = [line for _, line in usage_lines.lines(rows, [], {WORKSPACE: PriceBook(prices)})]
    amounts = [Decimal(line.amount) for line in found if line.amount is not None]
    assert amounts == ([expected] if any(any(each.figures) for each, _ in priced) else [])


@given(ROWS, BOOKS)
def test_each_request_and_token_is_on_one_line_and_lines_by_model_have_one_price(
    rows: list[Consumed], prices: list[Price]
) -> None:
    named = [each._replace(place=(WORKSPACE, SLUG)) for each in rows]
    found = [line for _, line in usage_lines.lines(named, [Dimension.MODEL], {WORKSPACE: PriceBook(prices)})]
    for name in DailyIncrement._fields:
        assert sum(getattr(line, name) for line in found) == sum(getattr(each.figures, name) for each in rows)
    for line in found:
        used = DailyIncrement(*(getattr(line, name) for name in DailyIncrement._fields))
        assert line.amount == (None if line.price is None else str(half_even(by_hand(line.price, used))))


@given(st.lists(st.tuples(st.sampled_from("abc"), DAYS, FIGURES), max_size=8), BOOKS)
def test_a_parents_line_sums_its_own_use_and_its_childrens(
    used: list[tuple[str, date, DailyIncrement]], prices: list[Price]
) -> None:
    a, b, c = (GroupOnTheWay(id_, f"customer {id_}") for id_ in "abc")
    tree = {"a": (a,), "b": (b, a), "c": (c, b, a)}
    rows = [row(day, figures, group_id, group_id=group_id) for group_id, day, figures in used]
    along = usage_lines.along_tree(rows, [Dimension.GROUP], tree)
    found = list(usage_lines.lines(along, [Dimension.GROUP], {WORKSPACE: PriceBook(prices)}))
    for group_id, below in {"a": "abc", "b": "bc", "c": "c"}.items():
        own = [figures for id_, _, figures in used if id_ in below]
        requests = sum(line.requests for (_, id_), line in found if id_ == group_id)
        assert requests == sum(figures.requests for figures in own)
