from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.config import WorkspaceRecord, WorkspaceState
from tests.contracts.control import desks
from tests.contracts.control.desks import Desk
from tests.support import engines
from tests.unit.control.fakes import NOW


@pytest.fixture(params=["memory", *engines.ENGINES])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """A desk in memory and on each engine, where the workspaces `lab` and `other` are."""
    if request.param == "memory":
        yield _furnished(desks.memory())
        return
    with engines.made(request.param, request, tmp_path).open() as opened, opened.engine.begin() as connection:
        yield _furnished(desks.database(connection, NOW))


def _furnished(made: Desk) -> Desk:
    for name in ("lab", "other"):
        record = WorkspaceRecord(id=name, name=f"the {name}", state=WorkspaceState.ACTIVE, operator_credential=False)
        made.workspaces.add(record, NOW)
    return made
