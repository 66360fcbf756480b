"""Changes at the same moment: each is judged by what the one before it left (contract 2.2)."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from control.store.groups import SqlGroups
from runtime.database.engines import Database
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab

PATH = "/v1/gateway/groups"
TOGETHER_S = 0.5


def limited(threshold: int) -> dict[str, Any]:
    return {"slug": "acme/m", "usage_limits": [helpers.day_limit(threshold)]}


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two changes meet after each has looked and before it writes, if anything lets them."""
    both = threading.Barrier(2)
    replace = SqlGroups.replace

    def after_both_have_looked(self: SqlGroups, *arguments: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(TOGETHER_S)
        replace(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SqlGroups, "replace", after_both_have_looked)
        yield


async def test_two_patches_that_are_fine_alone_and_not_together_leave_the_tree_valid(
    lab: Lab, database: Database, meeting: None
) -> None:
    await lab.endpoint("acme/m")
    root = await lab.made_group("root", limited(10), limit_enforcement="CASCADING")
    leaf = await lab.made_group("leaf", limited(5), parent_group_id=root["id"])
    answers = await asyncio.gather(
        lab.client.patch(f"{PATH}/{root['id']}", json={"models": [limited(7)]}),
        lab.client.patch(f"{PATH}/{leaf['id']}", json={"models": [limited(9)]}),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 400]
