"""Prices of the use of slugs."""

from collections.abc import Iterable
from datetime import date, timedelta

from control.core.records import Shown
from control.core.refusals import InvalidError
from control.unit_of_work import UnitOfWork
from schemas.money import Price, Prices

MOST_DAYS = 400
"""The longest stretch of days that one question may be about."""


def save(unit: UnitOfWork, prices: Prices) -> Prices:
    """Set all prices of the workspace. What is asked for from now on is priced by them, past days too."""
    before = unit.prices.find(unit.workspace_id)
    unit.prices.save(unit.workspace_id, prices, unit.now)
    gone, new = set(before.root) - set(prices.root), set(prices.root) - set(before.root)
    unit.journal.note(unit.workspace_id, "prices.update", unit.workspace_id, before=_shown(gone), after=_shown(new))
    return prices


def _shown(prices: Iterable[Price]) -> Shown:
    """Show those prices that one change takes away or brings: a list may hold thousands that stay."""
    in_order = sorted(prices, key=lambda price: (price.slug, price.external_entity_id or "", price.from_))
    return {"prices": [price.model_dump(mode="json", exclude_none=True) for price in in_order]}


def check_days(first: date, last: date) -> None:
    """Raise InvalidError where the days are no stretch, or one too long."""
    if last < first:
        raise InvalidError("to: must not be before from", param="to", code="invalid_query")
    if last - first >= timedelta(days=MOST_DAYS):
        raise InvalidError(f"to: at most {MOST_DAYS} days are allowed from `from` on", param="to", code="invalid_query")
