"""What every `Deliveries` keeps to: the fake that unit tests use, and the tables on both engines."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from metering.core.position import PositionLostError
from tests import engines
from tests.unit.webhooks import kit
from webhooks import store
from webhooks.core.retry import Decision, Delivered, GiveUp, Leave, Release, RetryAt
from webhooks.core.values import Attempt, Claim, Queue, Settlement, Share, Status, Waiting
from webhooks.flow import Deliveries

LEASE_S = 30.0
TRIED = Attempt(kit.START, 500, None, 12)


@pytest.fixture(params=["list", *engines.ENGINES])
def deliveries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deliveries]:
    if request.param == "list":
        yield kit.ListDeliveries(LEASE_S)
        return
    with engines.made(request.param, request, tmp_path).open() as opened:
        yield store.StoredDeliveries(opened, LEASE_S)


def share(count: int = 10, workspace_id: str = "ws", *, queue: Queue = Queue.FIRST) -> Share:
    return Share(workspace_id, queue, count)


async def claim_one(deliveries: Deliveries, at_s: float = 0, *, queue: Queue = Queue.FIRST) -> Claim:
    (claim,) = await deliveries.claim([share(queue=queue)], kit.after(at_s))
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
    assert (claim.first_attempt_at, claim.planned_at, claim.queue) == (kit.after(2), kit.START, Queue.FIRST)
    assert (claim.claimed_at, claim.lease_ends_at) == (kit.after(2), kit.after(2 + LEASE_S))
    assert not (claim.was_lost or claim.is_begun)


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
        [
            Waiting("a", Queue.FIRST, kit.START),
            Waiting("a", Queue.RETRY, kit.after(7)),
            Waiting("b", Queue.FIRST, kit.START),
        ],
        key=repr,
    )


async def test_a_retry_is_claimed_in_its_own_lane_when_it_is_planned(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries)
    await deliveries.settle([Settlement(claim, TRIED, RetryAt(kit.after(3)))], kit.after(1))
    assert await ids_due(deliveries, 100) == []
    assert await ids_due(deliveries, 2.9, share(queue=Queue.RETRY)) == []
    again = await claim_one(deliveries, 3, queue=Queue.RETRY)
    assert (again.attempt_number, again.first_attempt_at, again.planned_at) == (2, kit.START, kit.after(3))
    assert again.body == claim.body


@pytest.mark.parametrize("decision", [Delivered(), GiveUp("answered 410")])
async def test_what_has_ended_is_not_claimed_again(deliveries: Deliveries, decision: Delivered | GiveUp) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries)
    await deliveries.settle([Settlement(claim, TRIED, decision)], kit.START)
    assert await ids_due(deliveries, 10_000, share(), share(queue=Queue.RETRY)) == []


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
    assert again.was_lost
    assert again.is_begun


async def test_who_does_not_take_over_leaves_what_another_claimed(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    held = await claim_one(deliveries)
    await keep(deliveries, "two", first=2)
    claims = await deliveries.claim([share()], kit.after(LEASE_S + 1), takes_over=False)
    assert [claim.delivery_id for claim in claims] == ["two"]
    await deliveries.settle([Settlement(held, TRIED, RetryAt(kit.after(40)))], kit.after(LEASE_S + 1))
    again = await deliveries.claim([share(queue=Queue.RETRY)], kit.after(40), takes_over=False)
    assert [claim.was_lost for claim in again] == [False]


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
    again = await claim_one(deliveries, 3, queue=Queue.RETRY)
    assert (again.delivery_id, again.attempt_number) == ("one", 2)


PROBE = Queue.PROBE


async def lose(deliveries: Deliveries, *delivery_ids: str, at_s: float = 0) -> None:
    """Let each of these, which must be due, become a dead letter."""
    for claim in await deliveries.claim([share(len(delivery_ids))], kit.after(at_s)):
        assert claim.delivery_id in delivery_ids
        await deliveries.settle([Settlement(claim, TRIED, GiveUp("answered 410"))], kit.after(at_s))


async def hold(deliveries: Deliveries, *, at_s: float = 0) -> None:
    """Lose five deliveries in a row."""
    names = [f"lost-{number}" for number in range(5)]
    await keep(deliveries, *names)
    await lose(deliveries, *names, at_s=at_s)


async def test_four_dead_deliveries_do_not_hold_a_receiver_and_five_in_a_row_do(deliveries: Deliveries) -> None:
    await keep(deliveries, "a", "b", "c", "d", "e", "f")
    await lose(deliveries, *"abcd")
    assert Waiting("ws", Queue.FIRST, kit.START) in await deliveries.waiting()
    await lose(deliveries, "e", at_s=1)
    assert await deliveries.waiting() == [Waiting("ws", PROBE, kit.after(31))]


async def test_a_delivery_that_arrives_begins_the_row_anew(deliveries: Deliveries) -> None:
    await keep(deliveries, "a", "b", "c", "d", "e")
    await lose(deliveries, *"abcd")
    arrived = await claim_one(deliveries)
    await deliveries.settle([Settlement(arrived, TRIED, Delivered())], kit.START)
    await keep(deliveries, "f", first=6)
    await lose(deliveries, *"f")
    assert await deliveries.waiting() == []
    await keep(deliveries, "g", first=7)
    assert await deliveries.waiting() == [Waiting("ws", Queue.FIRST, kit.START)]


async def test_the_row_counts_what_one_settling_brings_in_its_order(deliveries: Deliveries) -> None:
    await keep(deliveries, *"abcdef")
    claims = await deliveries.claim([share()], kit.START)
    decisions: list[Decision] = [Delivered(), *[GiveUp("gone")] * 5]
    settlements = [Settlement(claim, TRIED, decision) for claim, decision in zip(claims, decisions, strict=True)]
    await deliveries.settle(settlements, kit.START)
    assert await deliveries.waiting() == [Waiting("ws", PROBE, kit.after(30))]


async def test_the_probe_is_the_oldest_that_waits_and_is_taken_once_in_thirty_seconds(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "new", "newer", first=6)
    assert await ids_due(deliveries, 29.9, share(queue=PROBE)) == []
    assert await ids_due(deliveries, 30, share(queue=PROBE)) == ["new"]
    assert await ids_due(deliveries, 30, share(queue=PROBE)) == []
    assert await deliveries.waiting() == [Waiting("ws", PROBE, kit.after(60))]


async def test_a_probe_that_fails_starts_no_clock_and_leaves_the_delivery_as_it_was(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "new", first=6)
    for at_s in (30, 60, 90):
        probe = await claim_one(deliveries, at_s, queue=PROBE)
        assert (probe.delivery_id, probe.attempt_number, probe.first_attempt_at) == ("new", 1, kit.after(at_s))
        await deliveries.settle([Settlement(probe, TRIED, Leave())], kit.after(at_s + 10))
    (claim,) = await deliveries.claim([share()], kit.after(100))
    assert (claim.first_attempt_at, claim.planned_at, claim.attempt_number) == (kit.after(100), kit.START, 1)


async def test_where_none_waits_the_oldest_dead_letter_of_a_day_is_the_probe(deliveries: Deliveries) -> None:
    await hold(deliveries)
    probe = await claim_one(deliveries, 30, queue=PROBE)
    assert probe.delivery_id == "lost-0"
    await deliveries.settle([Settlement(probe, TRIED, Leave())], kit.after(31))
    assert await deliveries.waiting() == [Waiting("ws", PROBE, kit.after(60))]
    assert (await claim_one(deliveries, 86_400, queue=PROBE)).delivery_id == "lost-0"
    assert await ids_due(deliveries, 86_430.1, share(queue=PROBE)) == []


async def test_a_probe_that_arrives_ends_the_hold(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "new", "newer", first=6)
    probe = await claim_one(deliveries, 30, queue=PROBE)
    await deliveries.settle([Settlement(probe, TRIED, Delivered())], kit.after(31))
    assert await deliveries.waiting() == [Waiting("ws", Queue.FIRST, kit.START)]
    assert await ids_due(deliveries, 32) == ["newer"]


async def test_retries_of_a_receiver_that_is_held_go_on_and_one_that_arrives_ends_the_hold(
    deliveries: Deliveries,
) -> None:
    await keep(deliveries, "tried")
    claim = await claim_one(deliveries)
    await deliveries.settle([Settlement(claim, TRIED, RetryAt(kit.after(1)))], kit.START)
    names = [f"lost-{number}" for number in range(5)]
    await keep(deliveries, *names, first=2)
    await lose(deliveries, *names)
    assert Waiting("ws", Queue.RETRY, kit.after(1)) in await deliveries.waiting()
    again = await claim_one(deliveries, 1, queue=Queue.RETRY)
    await deliveries.settle([Settlement(again, TRIED, Delivered())], kit.after(1))
    assert await deliveries.waiting() == []


async def test_a_probe_whose_receiver_went_away_before_it_was_made_leaves_no_trace(deliveries: Deliveries) -> None:
    await hold(deliveries)
    probe = await claim_one(deliveries, 30, queue=PROBE)
    await deliveries.settle([Settlement(probe, None, Release())], kit.after(30))
    assert (await claim_one(deliveries, 60, queue=PROBE)).delivery_id == "lost-0"


async def test_probes_that_are_refused_go_on_to_the_next_oldest_and_round(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "a-bad", "b-good", first=6)
    names = []
    for number in range(1, 10):
        probe = await claim_one(deliveries, 30 * number, queue=PROBE)
        names.append(probe.delivery_id)
        await deliveries.settle([Settlement(probe, TRIED, Leave(refused=True))], kit.after(30 * number + 1))
    lost = [f"lost-{number}" for number in range(5)]
    assert names == ["a-bad", "b-good", *lost, "a-bad", "b-good"]


async def test_a_probe_that_failed_otherwise_begins_with_the_oldest_again(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "a-bad", "b-good", first=6)
    for number, refused, name in [(1, True, "a-bad"), (2, False, "b-good"), (3, True, "a-bad"), (4, True, "b-good")]:
        probe = await claim_one(deliveries, 30 * number, queue=PROBE)
        assert probe.delivery_id == name
        await deliveries.settle([Settlement(probe, TRIED, Leave(refused=refused))], kit.after(30 * number + 1))
