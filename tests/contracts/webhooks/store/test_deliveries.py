"""What every `Deliveries` keeps to: the fake that unit tests use, and the tables on both engines."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from domain.positions import PositionLostError
from tests.contracts.webhooks.store.steps import LEASE_S, TRIED, Stage, claim_one, ids_due, keep, lose, share
from tests.unit.webhooks import kit
from webhooks.core.deliveries import Attempt, ClaimEnd, Queue, Status, WaitingQueue
from webhooks.core.retry import Decision, Delivered, GiveUp, Release, RetryAt
from webhooks.flow.ports import Deliveries


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
        await deliveries.enqueue([kit.draft("again", kit.event(9))], [stale], kit.START)
    assert await ids_due(deliveries, 0) == ["one"]
    await deliveries.enqueue(
        [kit.draft("next", kit.event(9))], [kit.batch(kit.event(9), first=2, topic="spool/ws")], kit.START
    )
    assert await ids_due(deliveries, 0) == ["next"]


async def test_stretches_of_several_partitions_are_kept_together_or_not_at_all(deliveries: Deliveries) -> None:
    first, second = kit.batch(kit.event(1), topic="a"), kit.batch(kit.event(2), topic="b")
    both = kit.draft("both", kit.event(1), kit.event(2))
    await deliveries.enqueue([both], [second, first], kit.START)
    (claim,) = await deliveries.claim([share()], kit.START)
    assert (claim.delivery_id, claim.body.count(b"key-00000")) == ("both", 2)
    third = kit.batch(kit.event(3), first=2, topic="a")
    with pytest.raises(PositionLostError, match="b/0"):
        await deliveries.enqueue([kit.draft("lost", kit.event(3), kit.event(2))], [third, second], kit.START)
    await deliveries.enqueue([kit.draft("alone", kit.event(3))], [third], kit.START)
    assert await ids_due(deliveries, 0) == ["alone"]


async def test_the_position_is_where_the_last_batch_ends(deliveries: Deliveries) -> None:
    assert await deliveries.position("spool/ws", 0) is None
    await keep(deliveries, "one")
    assert await deliveries.position("spool/ws", 0) == 2
    assert await deliveries.position("spool/ws", 1) is None


async def test_an_event_that_is_known_is_dropped_and_the_rest_is_kept(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    again, new = kit.event(1), kit.event(2)
    await deliveries.enqueue([kit.draft("mixed", again, new)], [kit.batch(again, new, topic="other")], kit.START)
    await deliveries.enqueue([kit.draft("known", again, new)], [kit.batch(again, new, topic="third")], kit.START)
    claims = await deliveries.claim([share()], kit.START)
    assert [claim.delivery_id for claim in claims] == ["one", "mixed"]
    assert b"key-000002" in claims[1].body
    assert b"key-000001" not in claims[1].body


async def test_keys_are_known_per_workspace(deliveries: Deliveries) -> None:
    await keep(deliveries, "one", workspace_id="a")
    await keep(deliveries, "two", workspace_id="b")
    assert await ids_due(deliveries, 0, share(workspace_id="a"), share(workspace_id="b")) == ["one", "two"]


async def test_an_empty_stretch_moves_the_position(deliveries: Deliveries) -> None:
    await deliveries.enqueue([], [kit.batch(first=5)], kit.START)
    with pytest.raises(PositionLostError):
        await deliveries.enqueue([], [kit.batch(first=4)], kit.START)


async def test_what_is_not_due_is_never_claimed(deliveries: Deliveries) -> None:
    event = kit.event(1)
    await deliveries.enqueue([kit.draft("one", event, status=Status.NOT_DUE)], [kit.batch(event)], kit.START)
    assert await deliveries.waiting() == []
    assert await ids_due(deliveries, 10_000) == []


async def test_waiting_names_each_lane_with_its_earliest_moment(deliveries: Deliveries) -> None:
    assert await deliveries.waiting() == []
    await keep(deliveries, "a1", "a2", workspace_id="a")
    await keep(deliveries, "b1", workspace_id="b")
    await keep(deliveries, "c1", workspace_id="c")
    (claim,) = await deliveries.claim([share(1, "a")], kit.START)
    await deliveries.finish([ClaimEnd(claim, TRIED, RetryAt(kit.after(7)))], kit.START)
    (claim,) = await deliveries.claim([share(1, "c")], kit.START)
    await deliveries.finish([ClaimEnd(claim, TRIED, Delivered())], kit.START)
    assert sorted(await deliveries.waiting(), key=repr) == sorted(
        [
            WaitingQueue("a", Queue.FIRST, kit.START),
            WaitingQueue("a", Queue.RETRY, kit.after(7)),
            WaitingQueue("b", Queue.FIRST, kit.START),
        ],
        key=repr,
    )


async def test_a_retry_is_claimed_in_its_own_lane_when_it_is_planned(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries)
    await deliveries.finish([ClaimEnd(claim, TRIED, RetryAt(kit.after(3)))], kit.after(1))
    assert await ids_due(deliveries, 100) == []
    assert await ids_due(deliveries, 2.9, share(queue=Queue.RETRY)) == []
    again = await claim_one(deliveries, 3, queue=Queue.RETRY)
    assert (again.attempt_number, again.first_attempt_at, again.planned_at) == (2, kit.START, kit.after(3))
    assert again.body == claim.body
    await deliveries.finish([ClaimEnd(again, TRIED, RetryAt(kit.after(6)))], kit.after(4))
    third = await claim_one(deliveries, 7, queue=Queue.RETRY)
    assert (third.attempt_number, third.first_attempt_at, third.planned_at) == (3, kit.START, kit.after(6))


@pytest.mark.parametrize("decision", [Delivered(), GiveUp("answered 410")])
async def test_what_has_ended_is_not_claimed_again(deliveries: Deliveries, decision: Delivered | GiveUp) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries)
    await deliveries.finish([ClaimEnd(claim, TRIED, decision)], kit.START)
    assert await ids_due(deliveries, 10_000, share(), share(queue=Queue.RETRY)) == []


async def test_a_released_claim_waits_as_before_and_its_clock_has_not_started(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    claim = await claim_one(deliveries, 1)
    await deliveries.finish([ClaimEnd(claim, None, Release())], kit.after(1))
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
    await deliveries.finish([ClaimEnd(held, TRIED, RetryAt(kit.after(40)))], kit.after(LEASE_S + 1))
    again = await deliveries.claim([share(queue=Queue.RETRY)], kit.after(40), takes_over=False)
    assert [claim.was_lost for claim in again] == [False]


async def test_a_lost_claim_changes_nothing_unless_it_delivered(deliveries: Deliveries) -> None:
    await keep(deliveries, "one")
    lost = await claim_one(deliveries)
    held = await claim_one(deliveries, LEASE_S)
    await deliveries.finish([ClaimEnd(lost, TRIED, GiveUp("too late"))], kit.after(LEASE_S))
    await deliveries.finish([ClaimEnd(held, TRIED, RetryAt(kit.after(40)))], kit.after(LEASE_S))
    await deliveries.finish([ClaimEnd(lost, TRIED, Delivered())], kit.after(LEASE_S))
    assert await deliveries.waiting() == []


async def test_settling_again_changes_nothing(stage: Stage) -> None:
    deliveries = stage.deliveries
    await keep(deliveries, "one", "two")
    first, second = await deliveries.claim([share()], kit.START)
    ends: Sequence[ClaimEnd] = [
        ClaimEnd(first, TRIED, RetryAt(kit.after(3))),
        ClaimEnd(second, TRIED, Delivered()),
    ]
    await deliveries.finish(ends, kit.START)
    await deliveries.finish(ends, kit.START)
    again = await claim_one(deliveries, 3, queue=Queue.RETRY)
    assert (again.delivery_id, again.attempt_number) == ("one", 2)
    assert [stage.attempts(name) for name in ("one", "two")] == [[TRIED], [TRIED]]


async def test_every_attempt_is_kept_as_it_went_and_in_its_order(stage: Stage) -> None:
    tried = [
        TRIED,
        Attempt(kit.after(4), None, "no answer within 10 s", 10_000),
        Attempt(kit.after(9), 204, None, 7, ""),
    ]
    decisions: list[Decision] = [RetryAt(kit.after(3)), RetryAt(kit.after(8)), Delivered()]
    await keep(stage.deliveries, "one")
    for number, (attempt, decision) in enumerate(zip(tried, decisions, strict=True)):
        claim = await claim_one(stage.deliveries, 4 * number, queue=Queue.RETRY if number else Queue.FIRST)
        await stage.deliveries.finish([ClaimEnd(claim, attempt, decision)], attempt.at)
    assert stage.attempts("one") == tried


async def test_a_delivery_that_has_arrived_is_not_finished_again(stage: Stage) -> None:
    """Its commit was answered by nobody, so its dispatcher settles it again, whatever has happened since."""
    deliveries = stage.deliveries
    await keep(deliveries, "one")
    arrived = ClaimEnd(await claim_one(deliveries), TRIED, Delivered())
    await deliveries.finish([arrived], kit.START)
    await keep(deliveries, *"abcde", first=2)
    await lose(deliveries, *"abcde", at_s=1)
    await deliveries.finish([arrived], kit.after(2))
    assert stage.attempts("one") == [TRIED]
    assert await deliveries.waiting() == [WaitingQueue("ws", Queue.PROBE, kit.after(31))], (
        "the receiver is held all the same"
    )
    await deliveries.finish([ClaimEnd(arrived.claim, TRIED, GiveUp("late"))], kit.after(2))
    assert stage.attempts("one") == [TRIED]
