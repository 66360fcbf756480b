"""Queries of the prices that labs set for the use of their slugs."""

from datetime import datetime

from sqlalchemy import Connection, select

from control.store.tables import PRICES
from runtime.database import statements
from schemas.money import Prices


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
        """Keep new prices in place of all the old."""
        values = {"workspace_id": workspace_id, "prices": prices.model_dump(mode="json"), "updated_at": now}
        statement = statements.insert_into(self._connection.dialect.name, PRICES).values(values)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[PRICES.c.workspace_id],
                set_={"prices": statement.excluded.prices, "updated_at": statement.excluded.updated_at},
            )
        )

    def every(self) -> dict[str, Prices]:
        """Return the prices of each workspace that has set some, by its id."""
        rows = self._connection.execute(select(PRICES.c.workspace_id, PRICES.c.prices))
        return {row.workspace_id: Prices(row.prices) for row in rows}
