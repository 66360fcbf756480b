"""What usage costs: which price holds, exact amounts, and the one rounding at the line.

Rules:

- A customer's own price goes before everyone's, also where everyone's is newer; of several the newest that has begun.
- What one event costs, as limits of the type COST count it, is rounded half-even to a millionth of the minor unit; a
  sum of a million events is so far from exact by half a minor unit at most.
- Else an amount is exact until `rounded`, which rounds half-even to the currency's minor unit (ISO 4217).
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact
from functools import partial
from typing import NamedTuple

from domain.amounts import COST_PARTS
from schemas.money import Price
from schemas.usage import MOST_COST

_EXACT = Context(prec=200, traps=[Inexact])
"""More digits than any sum of 64-bit counts times any price has; an operation that would round raises."""
_MILLIONTH = -6
_MILLION = 10**6
_FINEST = Decimal(10**12)
"""A price has twelve digits behind the point at most."""

_WITHOUT_MINOR_UNIT = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THOUSANDTHS = "BHD IQD JOD KWD LYD OMR TND"
_DIGITS = dict.fromkeys(_WITHOUT_MINOR_UNIT.split(), 0) | dict.fromkeys(_THOUSANDTHS.split(), 3)
_USUAL_DIGITS = 2
"""Of the minor unit, where ISO 4217 says nothing else."""


class PriceBook:
    """The prices of one workspace, to be asked for one slug, customer and day."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._known: dict[tuple[str, str | None], list[Price]] = defaultdict(list)
        for price in sorted(prices, key=lambda price: price.from_):
            self._known[price.slug, price.external_entity_id].append(price)

    def __bool__(self) -> bool:
        """Tell whether there is any price."""
        return bool(self._known)

    def find(self, slug: str, external_entity_id: str, day: date) -> Price | None:
        """Return the price of a customer's use of a slug on a UTC day; None where it has none."""
        for customer in (external_entity_id, None):
            of_it = self._known.get((slug, customer), [])
            begun = bisect_right(of_it, day, key=lambda price: price.from_)
            if begun:
                return of_it[begun - 1]
        return None


class UnitCost(NamedTuple):
    """A price as whole numbers: of a request and of a token of each kind, in `per` parts of COST_PARTS a minor unit."""

    request: int
    input: int
    cached_input: int
    output: int
    per: int

    def of(self, requests: int, input_tokens: int, cached_input_tokens: int, output_tokens: int) -> int:
        """Return what these cost, in millionths of the minor unit, at most MOST_COST; cached is part of input."""
        uncached = input_tokens - cached_input_tokens
        tokens = uncached * self.input + cached_input_tokens * self.cached_input + output_tokens * self.output
        whole, rest = divmod(requests * self.request + tokens, self.per)
        whole += 2 * rest > self.per or (2 * rest == self.per and whole % 2 == 1)
        return min(whole, MOST_COST)


class Tariff:
    """What the use of a slug by a customer costs, day by day."""

    def __init__(self, book: PriceBook, slug: str, external_entity_id: str) -> None:
        self._find = partial(book.find, slug, external_entity_id)
        self._day = date.min
        self._of_day: UnitCost | None = None

    def on(self, day: date) -> UnitCost | None:
        """Return what it costs on a UTC day; None where there is no price."""
        if day != self._day:
            price = self._find(day)
            self._day, self._of_day = day, None if price is None else unit_cost(price)
        return self._of_day


def unit_cost(price: Price) -> UnitCost:
    """Return a price as whole numbers, exactly."""
    parts = COST_PARTS * 10 ** _DIGITS.get(price.currency, _USUAL_DIGITS)
    request, prompt, cached, output = (
        int(_EXACT.multiply(Decimal(each), _FINEST))
        for each in (price.request, price.input, price.cached_input, price.output)
    )
    return UnitCost(request * _MILLION, prompt, cached, output, int(_FINEST) * _MILLION // parts)


def cost(price: Price, requests: int, input_tokens: int, cached_input_tokens: int, output_tokens: int) -> Decimal:
    """Return the exact amount, in the currency's major unit. Counts may be negative; cached is part of input."""
    uncached = input_tokens - cached_input_tokens
    of_tokens = plus(
        plus(_times(uncached, price.input), _times(cached_input_tokens, price.cached_input)),
        _times(output_tokens, price.output),
    )
    return plus(_times(requests, price.request), of_tokens.scaleb(_MILLIONTH, _EXACT))


def plus(first: Decimal, second: Decimal) -> Decimal:
    """Return the exact sum of two amounts."""
    return _EXACT.add(first, second)


def rounded(amount: Decimal, currency: str) -> Decimal:
    """Round half-even to the currency's minor unit."""
    unit = Decimal(1).scaleb(-_DIGITS.get(currency, _USUAL_DIGITS))
    return amount.quantize(unit, ROUND_HALF_EVEN, Context(prec=_EXACT.prec))


def _times(count: int, unit_price: str) -> Decimal:
    return _EXACT.multiply(Decimal(count), Decimal(unit_price))
