"""Queries of the prices that labs set for the use of their slugs."""

import hashlib
from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, select

from control.store.tables import PRICES
from runtime.config import log as config_log
from runtime.database import statements
from schemas.config import ConfigKind, PriceRecord
from schemas.money import Price, Prices


class SqlPriceLists:
    """The prices of all workspaces, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, workspace_id: str) -> Prices:
        """Return the workspace's prices; none where it has set none."""
        query = select(PRICES.c.prices).where(PRICES.c.workspace_id == workspace_id)
        found = self._connection.execute(query).scalar_one_or_none()
        return Prices(found or ())

    def save(self, workspace_id: str, prices: Prices, now: datetime) -> None:
        """Keep new prices in place of all the old, and tell the other processes what has changed."""
        before = _by_id(workspace_id, self.find(workspace_id))
        after = _by_id(workspace_id, prices)
        values = {"workspace_id": workspace_id, "prices": prices.model_dump(mode="json"), "updated_at": now}
        statement = statements.insert_into(self._connection.dialect.name, PRICES).values(values)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[PRICES.c.workspace_id],
                set_={"prices": statement.excluded.prices, "updated_at": statement.excluded.updated_at},
            )
        )
        for id_ in before.keys() | after.keys():
            record = after.get(id_)
            if record != before.get(id_):
                config_log.append(self._connection, now, ConfigKind.PRICE, id_, record)

    def every(self) -> dict[str, Prices]:
        """Return the prices of each workspace that has set some, by its id."""
        rows = self._connection.execute(select(PRICES.c.workspace_id, PRICES.c.prices))
        return {row.workspace_id: Prices(row.prices) for row in rows}

    def records(self) -> Iterator[tuple[str, PriceRecord]]:
        """Yield each price of all workspaces with its id, as the other processes are told of it."""
        for workspace_id, prices in self.every().items():
            yield from _by_id(workspace_id, prices).items()


def _by_id(workspace_id: str, prices: Prices) -> dict[str, PriceRecord]:
    return {_id(workspace_id, price): PriceRecord(workspace_id=workspace_id, price=price) for price in prices.root}


def _id(workspace_id: str, price: Price) -> str:
    """Return the id of a price: of one slug, one customer or all, and one first day."""
    parts = (workspace_id, price.slug, price.from_.isoformat(), price.external_entity_id or "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
