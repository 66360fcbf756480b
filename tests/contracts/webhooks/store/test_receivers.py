"""What every `Deliveries` keeps to of receivers that are held: who is held, what the probe is, what ends the hold."""

from tests.contracts.webhooks.store.steps import TRIED, claim_one, hold, ids_due, keep, lose, share
from tests.unit.webhooks import kit
from webhooks.core.deliveries import ClaimEnd, Queue, WaitingQueue
from webhooks.core.retry import Decision, Delivered, GiveUp, Leave, Release, RetryAt
from webhooks.flow.ports import Deliveries

PROBE = Queue.PROBE


async def test_four_dead_deliveries_do_not_hold_a_receiver_and_five_in_a_row_do(deliveries: Deliveries) -> None:
    await keep(deliveries, "a", "b", "c", "d", "e", "f")
    await lose(deliveries, *"abcd")
    assert WaitingQueue("ws", Queue.FIRST, kit.START) in await deliveries.waiting()
    await lose(deliveries, "e", at_s=1)
    assert await deliveries.waiting() == [WaitingQueue("ws", PROBE, kit.after(31))]


async def test_a_delivery_that_arrives_begins_the_row_anew(deliveries: Deliveries) -> None:
    await keep(deliveries, "a", "b", "c", "d", "e")
    await lose(deliveries, *"abcd")
    arrived = await claim_one(deliveries)
    await deliveries.finish([ClaimEnd(arrived, TRIED, Delivered())], kit.START)
    await keep(deliveries, "f", first=6)
    await lose(deliveries, *"f")
    assert await deliveries.waiting() == []
    await keep(deliveries, "g", first=7)
    assert await deliveries.waiting() == [WaitingQueue("ws", Queue.FIRST, kit.START)]


async def test_the_row_counts_what_one_settling_brings_in_its_order(deliveries: Deliveries) -> None:
    await keep(deliveries, *"abcdef")
    claims = await deliveries.claim([share()], kit.START)
    decisions: list[Decision] = [Delivered(), *[GiveUp("gone")] * 5]
    ends = [ClaimEnd(claim, TRIED, decision) for claim, decision in zip(claims, decisions, strict=True)]
    await deliveries.finish(ends, kit.START)
    assert await deliveries.waiting() == [WaitingQueue("ws", PROBE, kit.after(30))]


async def test_the_probe_is_the_oldest_that_waits_and_is_taken_once_in_thirty_seconds(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "new", "newer", first=6)
    assert await ids_due(deliveries, 29.9, share(queue=PROBE)) == []
    assert await ids_due(deliveries, 30, share(queue=PROBE)) == ["new"]
    assert await ids_due(deliveries, 30, share(queue=PROBE)) == []
    assert await deliveries.waiting() == [WaitingQueue("ws", PROBE, kit.after(60))]


async def test_a_probe_that_fails_starts_no_clock_and_leaves_the_delivery_as_it_was(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "new", first=6)
    for at_s in (30, 60, 90):
        probe = await claim_one(deliveries, at_s, queue=PROBE)
        assert (probe.delivery_id, probe.attempt_number, probe.first_attempt_at) == ("new", 1, kit.after(at_s))
        await deliveries.finish([ClaimEnd(probe, TRIED, Leave())], kit.after(at_s + 10))
    (claim,) = await deliveries.claim([share()], kit.after(100))
    assert (claim.first_attempt_at, claim.planned_at, claim.attempt_number) == (kit.after(100), kit.START, 1)


async def test_where_none_waits_the_oldest_dead_letter_of_a_day_is_the_probe(deliveries: Deliveries) -> None:
    await hold(deliveries)
    probe = await claim_one(deliveries, 30, queue=PROBE)
    assert probe.delivery_id == "lost-0"
    await deliveries.finish([ClaimEnd(probe, TRIED, Leave())], kit.after(31))
    assert await deliveries.waiting() == [WaitingQueue("ws", PROBE, kit.after(60))]
    assert (await claim_one(deliveries, 86_400, queue=PROBE)).delivery_id == "lost-0"
    assert await ids_due(deliveries, 86_430.1, share(queue=PROBE)) == []


async def test_a_receiver_is_probed_with_its_own_dead_letters(deliveries: Deliveries) -> None:
    await keep(deliveries, "a-lost", workspace_id="other")
    (others,) = await deliveries.claim([share(workspace_id="other")], kit.START)
    await deliveries.finish([ClaimEnd(others, TRIED, GiveUp("answered 410"))], kit.START)
    await hold(deliveries, at_s=1)
    probe = await claim_one(deliveries, 31, queue=PROBE)
    assert (probe.delivery_id, probe.workspace_id) == ("lost-0", "ws")


async def test_what_another_dispatcher_holds_is_no_probe_until_its_lease_ends(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "new", first=6)
    await claim_one(deliveries, 5)
    assert (await claim_one(deliveries, 30, queue=PROBE)).delivery_id == "lost-0", "none that waits is free"
    taken_over = await claim_one(deliveries, 60, queue=PROBE)
    assert (taken_over.delivery_id, taken_over.was_lost) == ("new", True)


async def test_a_probe_that_arrives_ends_the_hold(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "new", "newer", first=6)
    probe = await claim_one(deliveries, 30, queue=PROBE)
    await deliveries.finish([ClaimEnd(probe, TRIED, Delivered())], kit.after(31))
    assert await deliveries.waiting() == [WaitingQueue("ws", Queue.FIRST, kit.START)]
    assert await ids_due(deliveries, 32) == ["newer"]


async def test_retries_of_a_receiver_that_is_held_go_on_and_one_that_arrives_ends_the_hold(
    deliveries: Deliveries,
) -> None:
    await keep(deliveries, "tried")
    claim = await claim_one(deliveries)
    await deliveries.finish([ClaimEnd(claim, TRIED, RetryAt(kit.after(1)))], kit.START)
    names = [f"lost-{number}" for number in range(5)]
    await keep(deliveries, *names, first=2)
    await lose(deliveries, *names)
    assert WaitingQueue("ws", Queue.RETRY, kit.after(1)) in await deliveries.waiting()
    again = await claim_one(deliveries, 1, queue=Queue.RETRY)
    await deliveries.finish([ClaimEnd(again, TRIED, Delivered())], kit.after(1))
    assert await deliveries.waiting() == []


async def test_a_probe_whose_receiver_went_away_before_it_was_made_leaves_no_trace(deliveries: Deliveries) -> None:
    await hold(deliveries)
    probe = await claim_one(deliveries, 30, queue=PROBE)
    await deliveries.finish([ClaimEnd(probe, None, Release())], kit.after(30))
    assert (await claim_one(deliveries, 60, queue=PROBE)).delivery_id == "lost-0"


async def test_probes_that_are_refused_go_on_to_the_next_oldest_and_round(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "a-bad", "b-good", first=6)
    names = []
    for number in range(1, 10):
        probe = await claim_one(deliveries, 30 * number, queue=PROBE)
        names.append(probe.delivery_id)
        await deliveries.finish([ClaimEnd(probe, TRIED, Leave(refused=True))], kit.after(30 * number + 1))
    lost = [f"lost-{number}" for number in range(5)]
    assert names == ["a-bad", "b-good", *lost, "a-bad", "b-good"]


async def test_a_probe_that_failed_otherwise_begins_with_the_oldest_again(deliveries: Deliveries) -> None:
    await hold(deliveries)
    await keep(deliveries, "a-bad", "b-good", first=6)
    for number, refused, name in [(1, True, "a-bad"), (2, False, "b-good"), (3, True, "a-bad"), (4, True, "b-good")]:
        probe = await claim_one(deliveries, 30 * number, queue=PROBE)
        assert probe.delivery_id == name
        await deliveries.finish([ClaimEnd(probe, TRIED, Leave(refused=refused))], kit.after(30 * number + 1))
