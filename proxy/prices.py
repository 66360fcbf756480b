"""The prices that labs set, as a proxy holds them: by workspace, to be asked for one slug and customer."""

from domain.money import PriceBook, Tariff
from runtime.config.newest import Newest
from schemas.config import ConfigChange, PriceRecord


class PriceBooks:
    """The prices of all workspaces. A book is made anew when it is first asked for after a change."""

    def __init__(self) -> None:
        self._prices: Newest[PriceRecord] = Newest()
        self._ids: dict[str, set[str]] = {}
        """Those of each workspace that has any."""
        self._books: dict[str, PriceBook] = {}

    def put(self, change: ConfigChange) -> None:
        """Take a new price, or the end of one."""
        before = self._prices.get(change.id)
        record = change.record if isinstance(change.record, PriceRecord) else None
        if not self._prices.put(change.id, change.version, record):
            return
        for one in (before, record):
            if one is not None:
                self._books.pop(one.workspace_id, None)
                self._ids.setdefault(one.workspace_id, set()).add(change.id)
        if before is not None and record is None:
            ids = self._ids[before.workspace_id]
            ids.discard(change.id)
            if not ids:
                del self._ids[before.workspace_id]

    def tariff(self, workspace_id: str, slug: str, external_entity_id: str) -> Tariff | None:
        """Return what a customer's use of a slug costs; None where the workspace has no prices."""
        ids = self._ids.get(workspace_id)
        if ids is None:
            return None
        book = self._books.get(workspace_id)
        if book is None:
            records = filter(None, map(self._prices.get, ids))
            book = self._books[workspace_id] = PriceBook(record.price for record in records)
        return Tariff(book, slug, external_entity_id)
