"""What every `Deliveries` keeps to: the fake that unit tests use, and the tables on SQLite."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from metering.core.position import PositionLostError
from runtime import database
from tests.unit.webhooks import kit
from webhooks import store
from webhooks.core.retry import Delivered, GiveUp, Release, RetryAt
from webhooks.core.values import Attempt, Claim, Settlement, Share, Status, Waiting
from webhooks.flow import Deliveries

LEASE_S = 30.0
TRIED = Attempt(kit.START, 500, None, 12)


@pytest.fixture(params=["list", "sqlite"])
def deliveries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deliveries]:
    if request.param == "list":
        yield kit.ListDeliveries(LEASE_S)
        return
    with database.sqlite(tmp_path / "webhooks.db") as opened:
        database.METADATA.create_all(opened.engine)
        yield store.StoredDeliveries(opened, LEASE_S)


def share(count: int = 10, workspace_id: str = "ws", *, retrying: bool = False) -> Share:
    return Share(workspace_id, retrying, count)


async def claim_one(deliveries: Deliveries, at_s: float = 0, *, retrying: bool = False) -> Claim:
    (claim,) = await deliveries.claim([share(retrying=retrying)], kit.after(at_s))
    return claim


async def ids_due(deliveries: Deliveries, at_s: float, *shares: Share) -> list[str]:
    return [claim.delivery_id for claim in await deliveries.claim(shares or (share(),), kit.after(at_s))]


async def keep(deliveries: Deliveries, *delivery_ids: str, workspace_id: str = "ws", first: int = 1) -> None:
    events = [kit.event(first + number, workspace_id) for number, _ in enumerate(delivery_ids)]
    drafts = [kit.draft(delivery_id, event) for delivery_id, event in zip(delivery_ids, events, strict=True)]
    topic = f"spool/{workspace_id}"
    await deliveries.enqueue(drafts, kit.batch(*events, first=first, topic=topic), kit.START)


async def test_what_was_kept_can_be_claimed_once(deliveries: Deliveries) -> None:
    await keep(deliveries, "one", "two", "three")
    assert await ids_due(deliveries, 0, share(2)) == ["one", "two"]
    assert await ids_due(deliveries, 0) == ["three"]
    assert await ids_due(deliveries, 1) == []


async def test_a_claim_carries_what_an_attempt_needs(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries, 2)
    assert b"key-000001" in claim.body
    assert (claim.delivery_id, claim.workspace_id, claim.attempt_number) == ("one", "ws", 1)
    assert (claim.first_attempt_at, claim.planned_at, claim.retrying) == (kit.after(2), kit.START, False)


async def test_a_position_that_another_worker_moved_keeps_nothing(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    stale = kit.batch(kit.event(9), topic="spool/ws")
    with pytest.raises(PositionLostError):
        await deliveries.enqueue([kit.draft("again", kit.event(9))], stale, kit.START)
    assert await ids_due(deliveries, 0) == ["one"]
    await deliveries.enqueue(
        [kit.draft("next", kit.event(9))], kit.batch(kit.event(9), first=2, topic="spool/ws"), kit.START
    )
    assert await ids_due(deliveries, 0) == ["next"]


async def test_an_event_that_is_known_is_dropped_and_the_rest_is_kept(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    again, new = kit.event(1), kit.event(2)
    await deliveries.enqueue([kit.draft("mixed", again, new)], kit.batch(again, new, topic="other"), kit.START)
    await deliveries.enqueue([kit.draft("known", again, new)], kit.batch(again, new, topic="third"), kit.START)
    claims = await deliveries.claim([share()], kit.START)
    assert [claim.delivery_id for claim in claims] == ["one", "mixed"]
    assert b"key-000002" in claims[1].body
    assert b"key-000001" not in claims[1].body


async def test_keys_are_known_per_workspace(deliveries: Deliveries) -> None:
    await keep(deliveries, "one", workspace_id="a")
    await keep(deliveries, "two", workspace_id="b")
    assert await ids_due(deliveries, 0, share(workspace_id="a"), share(workspace_id="b")) == ["one", "two"]


async def test_an_empty_stretch_moves_the_position(deliveries: Deliveries) -> None:
    await deliveries.enqueue([], kit.batch(first=5), kit.START)
    with pytest.raises(PositionLostError):
        await deliveries.enqueue([], kit.batch(first=4), kit.START)


async def test_what_is_not_due_is_never_claimed(deliveries: Deliveries) -> None:
    event = kit.event(1)
    await deliveries.enqueue([kit.draft("one", event, status=Status.NOT_DUE)], kit.batch(event), kit.START)
    assert await deliveries.waiting() == []
    assert await ids_due(deliveries, 10_000) == []


async def test_waiting_names_each_lane_with_its_earliest_moment(deliveries: Deliveries) -> None:
    assert await deliveries.waiting() == []
    await keep(deliveries, "a1", "a2", workspace_id="a")
    await keep(deliveries, "b1", workspace_id="b")
    await keep(deliveries, "c1", workspace_id="c")
    (claim,) = await deliveries.claim([share(1, "a")], kit.START)
    await deliveries.settle([Settlement(claim, TRIED, RetryAt(kit.after(7)))], kit.START)
    (claim,) = await deliveries.claim([share(1, "c")], kit.START)
    await deliveries.settle([Settlement(claim, TRIED, Delivered())], kit.START)
    assert sorted(await deliveries.waiting(), key=repr) == sorted(
        [Waiting("a", False, kit.START), Waiting("a", True, kit.after(7)), Waiting("b", False, kit.START)],  # noqa: FBT003
        key=repr,
    )


async def test_a_retry_is_claimed_in_its_own_lane_when_it_is_planned(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries)
    await deliveries.settle([Settlement(claim, TRIED, RetryAt(kit.after(3)))], kit.after(1))
    assert await ids_due(deliveries, 100) == []
    assert await ids_due(deliveries, 2.9, share(retrying=True)) == []
    again = await claim_one(deliveries, 3, retrying=True)
    assert (again.attempt_number, again.first_attempt_at, again.planned_at) == (2, kit.START, kit.after(3))
    assert again.body == claim.body


@pytest.mark.parametrize("decision", [Delivered(), GiveUp("answered 410")])
async def test_what_has_ended_is_not_claimed_again(deliveries: Deliveries, decision: Delivered | GiveUp) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries)
    await deliveries.settle([Settlement(claim, TRIED, decision)], kit.START)
    assert await ids_due(deliveries, 10_000, share(), share(retrying=True)) == []


async def test_a_released_claim_waits_as_before_and_its_clock_has_not_started(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries, 1)
    await deliveries.settle([Settlement(claim, None, Release())], kit.after(1))
    again = await claim_one(deliveries, 2)
    assert (again.attempt_number, again.first_attempt_at, again.planned_at) == (1, kit.after(2), kit.START)


async def test_a_claim_whose_dispatcher_died_is_free_after_its_lease(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    lost = await claim_one(deliveries)
    assert await ids_due(deliveries, LEASE_S - 0.1) == []
    (waiting,) = await deliveries.waiting()
    assert waiting.due_at == kit.START + timedelta(seconds=LEASE_S)
    again = await claim_one(deliveries, LEASE_S)
    assert (again.first_attempt_at, again.attempt_number) == (kit.START, 1)
    assert again.token != lost.token


async def test_a_lost_claim_changes_nothing_unless_it_delivered(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    lost = await claim_one(deliveries)
    held = await claim_one(deliveries, LEASE_S)
    await deliveries.settle([Settlement(lost, TRIED, GiveUp("too late"))], kit.after(LEASE_S))
    await deliveries.settle([Settlement(held, TRIED, RetryAt(kit.after(40)))], kit.after(LEASE_S))
    await deliveries.settle([Settlement(lost, TRIED, Delivered())], kit.after(LEASE_S))
    assert await deliveries.waiting() == []


async def test_settling_again_changes_nothing(deliveries: Deliveries) -> None:
    await keep(deliveries, "one", "two")
    first, second = await deliveries.claim([share()], kit.START)
    settlements: Sequence[Settlement] = [
        Settlement(first, TRIED, RetryAt(kit.after(3))),
        Settlement(second, TRIED, Delivered()),
    ]
    await deliveries.settle(settlements, kit.START)
    await deliveries.settle(settlements, kit.START)
    again = await claim_one(deliveries, 3, retrying=True)
    assert (again.delivery_id, again.attempt_number) == ("one", 2)
