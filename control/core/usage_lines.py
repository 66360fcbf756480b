"""Makes priced lines of sums of usage, and adds sums along the tree of groups.

Rules:

- A line is rounded once. Lines by model are cut where the price changes; other lines are sums over several slugs and
  are cut by currency alone.
- Along a tree the use of a group is added to the line of each of its parents too, at the group's own price.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

from domain import costs
from domain.costs import PriceBook
from metering.core.consumed import Consumed, GroupingKey
from metering.core.sums import DailyIncrement
from schemas.money import Dimension, Price, UsageLine

Books = Mapping[str, PriceBook]
"""By workspace id."""

_NO_PRICES = PriceBook(())
_NOTHING = DailyIncrement()


@dataclass(frozen=True, slots=True)
class GroupOnTheWay:
    """A group that a sum is added to: itself, or a parent."""

    id: str
    external_entity_id: str


Tree = Mapping[str, Sequence[GroupOnTheWay]]
"""By a group's id, deleted ones too: itself and its way to the root."""


@dataclass(slots=True)
class _Part:
    """The use of one place under one price or currency."""

    price: Price | None
    figures: DailyIncrement = _NOTHING
    amount: Decimal = Decimal(0)
    last_used_at: datetime | None = None

    def add(self, row: Consumed, price: Price | None) -> None:
        """Add a row's sums and what they cost."""
        self.figures = DailyIncrement(*map(sum, zip(self.figures, row.figures, strict=True)))
        self.last_used_at = max(filter(None, (self.last_used_at, row.last_used_at)), default=None)
        if price is not None:
            self.amount = costs.plus(self.amount, _cost(price, row.figures))


def lines(rows: Iterable[Consumed], by: Sequence[Dimension], books: Books) -> Iterator[tuple[GroupingKey, UsageLine]]:
    """Return each place's lines, in the order of the rows, which are sorted by place."""
    for place, of_it in groupby(rows, key=lambda row: row.place):
        book = books.get(place[0], _NO_PRICES)
        for part in _parts(of_it, book, by_model=Dimension.MODEL in by):
            yield place, _line(place, by, part)


def along_tree(rows: Iterable[Consumed], by: Sequence[Dimension], tree: Tree) -> list[Consumed]:
    """Return the rows, each once for its group and once for every parent, sorted by place.

    Needs rows cut by group. A group that is not in the tree stands for itself.
    """
    added = [row._replace(place=_place_of(row.place, by, on_the_way)) for row in rows for on_the_way in _way(row, tree)]
    return sorted(added, key=lambda row: row.place)


def _way(row: Consumed, tree: Tree) -> Sequence[GroupOnTheWay | None]:
    way = tree.get(row.group_id or "", ())
    # The own place stays as it was counted: the external id that the daily table holds is the one of its time.
    return (None, *way[1:])


def _place_of(place: GroupingKey, by: Sequence[Dimension], on_the_way: GroupOnTheWay | None) -> GroupingKey:
    if on_the_way is None:
        return place
    other = {Dimension.CUSTOMER: on_the_way.external_entity_id, Dimension.GROUP: on_the_way.id}
    return (place[0], *(other.get(dimension, value) for dimension, value in zip(by, place[1:], strict=True)))


def _parts(rows: Iterable[Consumed], book: PriceBook, *, by_model: bool) -> list[_Part]:
    parts: dict[object, _Part] = {}
    for row in rows:
        price = _price(row, book)
        cut = None if price is None else _rates(price) if by_model else price.currency
        parts.setdefault(cut, _Part(price)).add(row, price)
    return sorted((part for part in parts.values() if any(part.figures)), key=_begins)


def _begins(part: _Part) -> int:
    return 0 if part.price is None else part.price.from_.toordinal()


def _price(row: Consumed, book: PriceBook) -> Price | None:
    if row.model_slug is None or row.external_entity_id is None or row.priced_day is None:
        return None
    return book.find(row.model_slug, row.external_entity_id, row.priced_day)


def _rates(price: Price) -> tuple[str, ...]:
    return price.currency, price.input, price.cached_input, price.output, price.request


def _cost(price: Price, figures: DailyIncrement) -> Decimal:
    return costs.cost(
        price,
        figures.requests,
        figures.input_tokens + figures.corrected_input_tokens,
        figures.cached_input_tokens,
        figures.output_tokens + figures.corrected_output_tokens,
    )


def _line(place: GroupingKey, by: Sequence[Dimension], part: _Part) -> UsageLine:
    told: dict[str, Any] = {dimension.value: value for dimension, value in zip(by, place[1:], strict=True)}
    if Dimension.KEY in by:
        told["last_used_at"] = part.last_used_at
    if part.price is not None and Dimension.MODEL in by:
        told["price"] = part.price
    currency = None if part.price is None else part.price.currency
    amount = None if currency is None else str(costs.rounded(part.amount, currency))
    return UsageLine(**told, **part.figures._asdict(), currency=currency, amount=amount)
