"""The prices that labs set, as a proxy holds them: by workspace, to be asked for one slug and customer."""

from domain.costs import PriceBook, Tariff
from schemas.config import PriceRecord
from schemas.money import Price


class PriceBooks:
    """The prices of all workspaces. A book is made anew when it is first asked for after a change."""

    def __init__(self) -> None:
        self._prices: dict[str, dict[str, Price]] = {}
        """Of each workspace that has any, by their ids."""
        self._books: dict[str, PriceBook] = {}

    def replace(self, id_: str, before: PriceRecord | None, after: PriceRecord | None) -> list[str]:
        """Take a new price in place of an old one, or the end of one; return the slugs that they are of."""
        if before is not None:
            prices = self._prices[before.workspace_id]
            del prices[id_]
            if not prices:
                del self._prices[before.workspace_id]
        if after is not None:
            self._prices.setdefault(after.workspace_id, {})[id_] = after.price
        changed = [one for one in (before, after) if one is not None]
        for one in changed:
            self._books.pop(one.workspace_id, None)
        return [one.price.slug for one in changed]

    def tariff(self, workspace_id: str, slug: str, external_entity_id: str) -> Tariff | None:
        """Return what a customer's use of a slug costs; None where the workspace has no prices."""
        prices = self._prices.get(workspace_id)
        if prices is None:
            return None
        book = self._books.get(workspace_id)
        if book is None:
            book = self._books[workspace_id] = PriceBook(prices.values())
        return Tariff(book, slug, external_entity_id)
