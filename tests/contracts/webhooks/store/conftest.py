"""The `Deliveries` that unit tests use, and the tables on both engines, each with a look at the attempts it keeps."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from runtime.database.engines import Database
from tests.contracts.webhooks.store.steps import LEASE_S, Stage
from tests.support import engines
from tests.unit.webhooks import kit
from webhooks.core.deliveries import Attempt
from webhooks.flow.ports import Deliveries
from webhooks.store import deliveries as delivery_store
from webhooks.store.tables import ATTEMPT


def over_a_list() -> Stage:
    deliveries = kit.ListDeliveries(LEASE_S)
    return Stage(deliveries, lambda delivery_id: deliveries.kept[delivery_id].attempts)


def over_tables(opened: Database) -> Stage:
    columns = (ATTEMPT.c.at, ATTEMPT.c.status_code, ATTEMPT.c.error, ATTEMPT.c.duration_ms, ATTEMPT.c.answer)

    def attempts(delivery_id: str) -> list[Attempt]:
        query = select(*columns).where(ATTEMPT.c.delivery_id == delivery_id).order_by(ATTEMPT.c.number)
        return [Attempt(*row) for row in opened.read_now(lambda connection: connection.execute(query).all())]

    return Stage(delivery_store.StoredDeliveries(opened, LEASE_S), attempts)


@pytest.fixture(params=["list", *engines.ENGINES])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    if request.param == "list":
        yield over_a_list()
        return
    with engines.made(request.param, request, tmp_path).open() as opened:
        yield over_tables(opened)


@pytest.fixture
def deliveries(stage: Stage) -> Deliveries:
    return stage.deliveries
