"""A desk of one's own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.reconcile import desk as desks


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[desks.Desk]:
    with desks.opened(tmp_path / "data") as made:
        yield made
