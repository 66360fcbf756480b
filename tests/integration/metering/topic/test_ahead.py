"""How much a worker fetches ahead of what it counts: bounded, and small fetches as one."""

from typing import Any

import pytest

from metering.store import transaction
from metering.topic import faust_consumer
from tests.integration.metering.topic.scene import Scene, away, places, running, until


def _refusals(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that grows each time a consumer has found no room for more."""
    monkeypatch.setattr(faust_consumer, "_LOOK_S", 0.1)
    refused: list[bool] = []
    has_room = faust_consumer._Consumer._has_room

    async def noted(consumer: Any) -> bool:
        found = await has_room(consumer)
        if not found:
            refused.append(True)
        return found

    monkeypatch.setattr(faust_consumer._Consumer, "_has_room", noted)
    return refused


async def test_too_much_is_not_fetched_ahead_while_the_database_is_away(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faust_consumer, "AHEAD", 50)
    monkeypatch.setattr(faust_consumer, "RECORDS", 20)
    refused = _refusals(monkeypatch)
    await scene.put(*(scene.event(number) for number in range(1, 501)))
    with monkeypatch.context() as broken:
        broken.setattr(transaction, "apply", away)
        worker = scene.worker()
        async with running(worker) as run:
            await until(lambda: bool(places(worker)), run)
            (place,) = places(worker)
            await until(lambda: len(refused) >= 2 or place.next_offset == 500, run)
            assert 0 < place.next_offset - place.done <= 50 + 20
            broken.undo()
            await until(lambda: scene.counted() == 500, run)


async def test_small_fetches_do_not_queue_up_behind_a_slow_batch(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait in the client, and come as one: a few a take would never be caught up with."""
    refused = _refusals(monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr(transaction, "apply", away)
        worker = scene.worker()
        async with running(worker) as run:
            await until(lambda: bool(places(worker)), run)
            (place,) = places(worker)
            for number in range(1, 41):
                await scene.put(scene.event(number))
                await until(lambda number=number: bool(refused) or place.next_offset == number, run)  # type: ignore[misc]
            assert refused, "no more was fetched while that was in hand"
            assert 0 < place.in_hand <= 8
            broken.undo()
            await until(lambda: scene.counted() == 40, run)
