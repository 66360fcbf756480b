"""Dispatchers that stood still, were cut off or died: what is sent, by whom, and with how much time."""

from dataclasses import replace

import pytest

from tests.unit.webhooks import kit
from tests.unit.webhooks.flow.test_dispatch import DISABLED, HOOK, Scene
from webhooks.core.absences import LONG, SETTLING, Absences
from webhooks.core.deliveries import Claim, Queue, Status
from webhooks.core.retry import Policy
from webhooks.flow.dispatch import Dispatch
from webhooks.policies import LEASE_MARGIN_S, Policies

LEASE_S = 30.0


def another(scene: Scene) -> Dispatch:
    """Return a second dispatcher on the same deliveries."""
    return scene.dispatcher()


async def pause(scene: Scene, dispatch: Dispatch, seconds: float) -> None:
    """Let time pass while `dispatch` takes its turns, and claims nothing."""
    for _ in range(round(seconds * 2)):
        await dispatch.claim()
        scene.clock.move(0.5)


async def put(scene: Scene) -> None:
    await scene.intake.process([kit.batch(kit.event(1, "a"))])


@pytest.mark.parametrize(("stood_s", "is_sent"), [(0, True), (19.9, True), (20, False), (3600, False)])
async def test_what_was_claimed_is_sent_only_where_the_attempt_ends_before_the_lease(
    stood_s: float, is_sent: bool
) -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await put(scene)
    (claim,), _ = await scene.dispatch.claim()
    scene.clock.move(stood_s)
    await scene.dispatch.attempt(claim)
    await scene.dispatch.finish()
    assert len(scene.sender.sent) == is_sent
    assert scene.statuses() == {"id-1": Status.DELIVERED if is_sent else Status.PENDING}


async def test_a_dispatcher_that_stood_still_sends_nothing_that_another_has_sent_meanwhile() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await put(scene)
    (claim,), _ = await scene.dispatch.claim()
    other = another(scene)
    await pause(scene, other, LEASE_S)
    (taken,), _ = await other.claim()
    await other.attempt(taken)
    await scene.dispatch.attempt(claim)
    assert len(scene.sender.sent) == 1
    await scene.dispatch.finish()
    await other.finish()
    assert scene.statuses() == {"id-1": Status.DELIVERED}


async def test_what_stood_still_before_its_first_attempt_has_a_whole_run_before_it() -> None:
    scene = Scene(kit.failed(), a=HOOK)
    await put(scene)
    (claim,), _ = await scene.dispatch.claim()
    scene.clock.move(18)
    await scene.dispatch.attempt(claim)
    await scene.dispatch.finish()
    scene.clock.move(1)
    assert await scene.turn() == 1
    assert [one.timeout_s for one in scene.sender.sent] == [10, 10]


@pytest.mark.parametrize("outage_s", [LEASE_S + 1, 3600])
async def test_after_an_outage_whoever_has_an_answer_writes_it_before_another_takes_over(outage_s: float) -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    other = another(scene)
    await put(scene)
    (claim,), _ = await scene.dispatch.claim()
    await other.claim()
    await scene.dispatch.attempt(claim)
    scene.clock.move(outage_s)
    assert list((await other.claim())[0]) == []
    scene.clock.move(5)
    assert list((await other.claim())[0]) == []
    await scene.dispatch.finish()
    scene.clock.move(SETTLING.total_seconds())
    assert (await other.claim())[0] == ()
    assert scene.statuses() == {"id-1": Status.DELIVERED}
    assert len(scene.sender.sent) == 1


async def test_who_never_writes_what_it_holds_is_taken_over_in_the_end() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await put(scene)
    await scene.dispatch.claim()
    other = another(scene)
    await other.claim()
    scene.clock.move(LEASE_S + 1)
    assert list((await other.claim())[0]) == []
    await pause(scene, other, SETTLING.total_seconds())
    assert len((await other.claim())[0]) == 1


async def test_who_is_slow_takes_over_all_the_same() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await put(scene)
    await scene.dispatch.claim()
    other = another(scene)
    turns = 0
    while not list((await other.claim())[0]):
        scene.clock.move(LONG.total_seconds() + 1)  # each of its turns takes longer than an absence lasts
        turns += 1
        assert turns < 10
    assert turns > 1


async def test_no_lease_that_its_holder_could_have_written_runs_out_in_a_gap_that_is_not_long() -> None:
    assert LONG.total_seconds() < LEASE_MARGIN_S
    assert Policies(policy=Policy(attempt_timeout_s=60)).claimed_for_s == 60 + LEASE_MARGIN_S


async def test_a_retry_that_the_database_kept_waiting_has_its_full_time() -> None:
    scene = Scene(kit.answered(500), a=HOOK)
    await put(scene)
    await scene.turn()
    scene.clock.move(600)
    assert await scene.turn() == 1
    assert scene.sender.sent[1].timeout_s == 10
    assert scene.statuses() == {"id-1": Status.DEAD}


async def test_a_retry_that_waited_for_its_webhook_to_be_enabled_has_its_full_time() -> None:
    scene = Scene(kit.answered(500), a=HOOK)
    await put(scene)
    await scene.turn()
    scene.receivers.receivers["a"] = DISABLED
    await pause(scene, scene.dispatch, 600)
    scene.receivers.receivers["a"] = HOOK
    assert await scene.turn() == 1
    assert scene.sender.sent[1].timeout_s == 10


async def test_a_retry_that_its_dispatchers_own_bounds_kept_waiting_has_what_is_left() -> None:
    scene = Scene(kit.answered(500), a=HOOK)
    await put(scene)
    await scene.turn()
    scene.clock.move(1)
    free = scene.deliveries.claim
    scene.deliveries.claim = nothing  # type: ignore[method-assign]
    await pause(scene, scene.dispatch, 7.5)
    scene.deliveries.claim = free  # type: ignore[method-assign]
    assert await scene.turn() == 1
    assert scene.sender.sent[1].timeout_s == 6.5


async def test_a_retry_before_which_its_dispatcher_stood_still_has_its_full_time() -> None:
    scene = Scene(kit.answered(500), a=HOOK)
    await put(scene)
    await scene.turn()
    scene.clock.move(1)
    (claim,), _ = await scene.dispatch.claim()
    scene.clock.move(9)
    await scene.dispatch.attempt(claim)
    assert scene.sender.sent[1].timeout_s == 10


async def test_nobody_was_away_from_a_run_that_had_not_begun() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await put(scene)
    scene.clock.move(600)
    (claim,), _ = await scene.dispatch.claim()
    lost_probe = replace(claim, was_lost=True)
    absences = Absences(1.0)
    absences.note(["a"], claim.claimed_at)
    for started_s in (600, 618):
        turn = absences.turn(lost_probe, kit.after(started_s))
        assert (turn.was_away, turn.first_attempt_at) == (False, kit.after(started_s))
    begun = replace(lost_probe, first_attempt_at=kit.after(599))
    assert absences.turn(begun, kit.after(600)).was_away


@pytest.mark.parametrize(("rest_s", "takes_over"), [(10, True), (10.001, False)])
def test_a_rest_is_long_above_ten_seconds(rest_s: float, *, takes_over: bool) -> None:
    absences = Absences(1.0)
    absences.note([], kit.START)
    absences.note([], kit.after(rest_s))
    assert SETTLING.total_seconds() == 10
    assert absences.takes_over(kit.after(rest_s)) is takes_over


@pytest.mark.parametrize(("rest_s", "was_away"), [(1.0, False), (1.001, True)])
def test_a_rest_above_the_gap_is_an_absence(rest_s: float, *, was_away: bool) -> None:
    absences = Absences(1.0)
    absences.note(["a"], kit.START)
    absences.note(["a"], kit.after(rest_s))
    assert absences.turn(retried(planned_s=-0.5), kit.after(rest_s)).was_away is was_away


@pytest.mark.parametrize(("first_s", "was_away"), [(-3, True), (-1, False)])
def test_nothing_was_due_before_its_runs_first_attempt(first_s: float, *, was_away: bool) -> None:
    """A claim that ran out is taken over as it was planned, and may have been planned long before it was claimed."""
    absences = Absences(1.0)
    absences.note(["a"], kit.START)
    claim = retried(planned_s=-60, first_s=first_s)
    assert absences.turn(claim, kit.START).was_away is was_away


def retried(*, planned_s: float, first_s: float = -2.0) -> Claim:
    """Return a claim, made now, of a run that began before."""
    moments = (kit.after(first_s), kit.after(planned_s), kit.START, kit.after(LEASE_S))
    return Claim("id-1", "token", "a", b"", Queue.RETRY, 2, *moments)


async def test_an_attempt_whose_dispatcher_died_is_made_by_another_with_its_full_time() -> None:
    scene = Scene(kit.failed(), a=HOOK)
    await put(scene)
    await scene.dispatch.claim()
    other = another(scene)
    await pause(scene, other, LEASE_S)
    (taken,), _ = await other.claim()
    await other.attempt(taken)
    await other.finish()
    assert [one.timeout_s for one in scene.sender.sent] == [10]
    assert scene.statuses() == {"id-1": Status.DEAD}


async def nothing(*_: object, **__: object) -> tuple[()]:
    return ()
