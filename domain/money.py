"""What usage costs: which price holds, exact amounts, and the one rounding at the line.

Rules:

- A customer's own price goes before everyone's, also where everyone's is newer; of several the newest that has begun.
- An amount is exact until `rounded`, which rounds half-even to the currency's minor unit (ISO 4217); nothing else does.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact

from schemas.money import Price

_EXACT = Context(prec=200, traps=[Inexact])
"""More digits than any sum of 64-bit counts times any price has; an operation that would round raises."""
_MILLIONTH = -6

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
