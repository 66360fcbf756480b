"""Intake and dispatch in domain words, on fakes."""

from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from tests.unit.webhooks import kit
from webhooks.core import fairness, signing
from webhooks.core.deliveries import Prepared, Receiver, Status
from webhooks.core.retry import AttemptResult, Policy
from webhooks.flow.dispatch import Dispatch
from webhooks.flow.intake import Intake

HOOK = Receiver("https://lab.example/hook", enabled=True, secrets=(kit.SECRET,))
DISABLED = Receiver("https://lab.example/hook", enabled=False, secrets=(kit.SECRET,))


class Scene:
    per_s: int | None = None

    def __init__(self, *outcomes: AttemptResult, **receivers: Receiver) -> None:
        self.clock = kit.HandClock()
        self.ahead_s = 0.0
        self.deliveries = kit.ListDeliveries()
        self.receivers = kit.FixedReceivers(**receivers)
        self.sender = kit.ScriptedSender(*outcomes)
        numbers = count(1)
        self.intake = Intake(self.deliveries, self.receivers, self.clock, lambda: f"id-{next(numbers)}", 2)
        self.dispatch = self.dispatcher()

    def dispatcher(self) -> Dispatch:
        """Return one more on the same deliveries."""
        return Dispatch(
            self.deliveries,
            self.receivers,
            self.sender,
            clock=self.clock,
            present=lambda: self.clock.now - timedelta(seconds=self.ahead_s),
            steady=self.clock.seconds,
            jitter=lambda: 0.0,
            policy=Policy(),
            limits=fairness.AttemptLimits(),
            per_s=self.per_s,
        )

    async def turn(self) -> int:
        """Let dispatch do what it can now; return how many attempts were begun."""
        claims, self.rest_s = await self.dispatch.claim()
        for claim in claims:
            await self.dispatch.attempt(claim)
        await self.dispatch.finish()
        return len(claims)

    def statuses(self) -> dict[str, Status]:
        return {delivery_id: kept.status for delivery_id, kept in self.deliveries.kept.items()}


async def test_intake_cuts_and_keeps_and_moves_the_position() -> None:
    scene = Scene(kit.answered(200), a=HOOK, off=DISABLED)
    events = (kit.event(1, "a"), kit.event(2, "a"), kit.event(3, "a"), kit.event(4, "off"), kit.event(5, "unknown"))
    await scene.intake.process([kit.batch(*events)])
    assert scene.statuses() == {
        "id-1": Status.PENDING,
        "id-2": Status.PENDING,
        "id-3": Status.NOT_DUE,
        "id-4": Status.NOT_DUE,
    }
    assert scene.deliveries.positions == {(kit.TOPIC, 0): 6}


async def test_a_delivery_is_signed_sent_and_finished() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    assert await scene.turn() == 1
    (sent,) = scene.sender.sent
    assert (sent.url, sent.timeout_s) == (HOOK.url, 10)
    signing.verify(sent.headers, sent.body, HOOK.secrets, kit.START)
    assert sent.headers["webhook-id"] == "id-1"
    assert scene.statuses() == {"id-1": Status.DELIVERED}
    assert scene.dispatch.is_idle


async def test_what_is_signed_has_the_time_that_receivers_have_also_where_ours_may_not_step_back() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    scene.ahead_s = 3600.0
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    assert await scene.turn() == 1
    (sent,) = scene.sender.sent
    signing.verify(sent.headers, sent.body, HOOK.secrets, kit.after(-3600))


async def test_attempts_and_what_became_of_deliveries_are_counted_once_they_are_written() -> None:
    scene = Scene(kit.answered(200), kit.answered(503), kit.failed(), kit.answered(404), a=HOOK)
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    (claim,), _ = await scene.dispatch.claim()
    assert scene.dispatch.in_flight == 1
    await scene.dispatch.attempt(claim)
    assert (scene.dispatch.in_flight, scene.dispatch.attempts) == (0, {})
    await scene.dispatch.finish()
    await scene.intake.process([kit.batch(kit.event(2, "a"), first=2)])
    for _ in range(3):
        assert await scene.turn() == 1
        scene.clock.move(5)
    assert scene.dispatch.attempts == {"2xx": 1, "5xx": 1, "no_answer": 1, "4xx": 1}
    assert scene.dispatch.ended == {Status.DELIVERED: 1, Status.DEAD: 1}


async def test_a_failed_delivery_comes_again_when_it_was_planned_with_the_same_bytes_and_id() -> None:
    scene = Scene(kit.answered(500), kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    await scene.turn()
    assert await scene.turn() == 0
    assert scene.rest_s == 1
    scene.clock.move(1)
    assert await scene.turn() == 1
    first, second = scene.sender.sent
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert second.headers["webhook-timestamp"] != first.headers["webhook-timestamp"]
    assert scene.statuses() == {"id-1": Status.DELIVERED}
    assert [attempt.status_code for attempt in scene.deliveries.kept["id-1"].attempts] == [500, 200]


async def test_each_attempt_uses_the_url_and_secrets_of_its_moment() -> None:
    scene = Scene(kit.answered(500), kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    await scene.turn()
    scene.clock.move(1)
    scene.receivers.receivers["a"] = Receiver("https://new.example", enabled=True, secrets=(kit.OLDER_SECRET,))
    await scene.turn()
    sent = scene.sender.sent[1]
    assert sent.url == "https://new.example"
    signing.verify(sent.headers, sent.body, (kit.OLDER_SECRET,), scene.clock.now)


async def test_a_dead_letter_keeps_its_reason() -> None:
    scene = Scene(kit.answered(410), a=HOOK)
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    await scene.turn()
    assert scene.statuses() == {"id-1": Status.DEAD}
    assert scene.deliveries.kept["id-1"].reason == "answered 410"


async def test_while_disabled_pending_deliveries_wait() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    scene.receivers.receivers["a"] = DISABLED
    assert await scene.turn() == 0
    assert (scene.sender.sent, scene.rest_s) == ([], None)
    scene.receivers.receivers["a"] = HOOK
    scene.clock.move(3600)
    assert await scene.turn() == 1
    assert scene.sender.sent[0].timeout_s == 10


async def test_a_receiver_that_goes_away_after_the_claim_costs_no_attempt() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    (claim,), _ = await scene.dispatch.claim()
    scene.receivers.receivers["a"] = DISABLED
    await scene.dispatch.attempt(claim)
    await scene.dispatch.finish()
    kept = scene.deliveries.kept["id-1"]
    assert (kept.status, kept.attempts, kept.first_attempt_at) == (Status.PENDING, [], None)
    assert scene.dispatch.is_idle


async def test_an_attempt_that_could_not_be_finished_is_finished_later() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(kit.event(1, "a"))])
    (claim,), _ = await scene.dispatch.claim()
    await scene.dispatch.attempt(claim)
    settle = scene.deliveries.finish

    async def away(*arguments: Any) -> None:
        raise OSError("no database")

    scene.deliveries.finish = away  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError, match="no database"):
        await scene.dispatch.finish()
    scene.deliveries.finish = settle  # type: ignore[method-assign]
    assert not scene.dispatch.is_idle
    await scene.dispatch.finish()
    assert scene.statuses() == {"id-1": Status.DELIVERED}
    assert scene.dispatch.is_idle


async def test_a_failing_receiver_gets_one_first_attempt_at_a_time_until_it_succeeds() -> None:
    scene = Scene(*[kit.answered(400)] * 4, kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(*(kit.event(number, "a") for number in range(1, 21)))])
    assert [await scene.turn() for _ in range(5)] == [4, 1, 4, 1, 0]


async def test_it_does_not_claim_beyond_what_is_in_flight() -> None:
    scene = Scene(kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(*(kit.event(number, "a") for number in range(1, 21)))])
    first, _ = await scene.dispatch.claim()
    second, _ = await scene.dispatch.claim()
    assert (len(first), len(second)) == (4, 0)
    await scene.dispatch.attempt(first[0])
    third, _ = await scene.dispatch.claim()
    assert len(third) == 1


async def test_a_receiver_that_keeps_failing_gets_a_probe_alone_until_it_is_back() -> None:
    scene = Scene(*[kit.answered(301)] * 5, kit.answered(503, "3600"), kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(*(kit.event(number, "a") for number in range(1, 11)))])
    while list(scene.statuses().values()).count(Status.DEAD) < 5:
        await scene.turn()
    await scene.intake.process([kit.batch(*(kit.event(number, "a") for number in range(11, 15)), first=11)])
    assert await scene.turn() == 0
    assert scene.rest_s == 30
    scene.clock.move(30)
    assert await scene.turn() == 1
    assert scene.statuses()["id-6"] is Status.PENDING
    assert len(scene.deliveries.kept["id-6"].attempts) == 1
    assert await scene.turn() == 0
    scene.clock.move(30)
    assert await scene.turn() == 1
    assert scene.statuses()["id-6"] is Status.DELIVERED
    assert await scene.turn() == 1
    assert scene.statuses()["id-7"] is Status.DELIVERED


async def test_a_probe_has_the_time_of_a_first_attempt_however_long_its_delivery_waited() -> None:
    scene = Scene(kit.answered(301), a=HOOK)
    await scene.intake.process([kit.batch(*(kit.event(number, "a") for number in range(1, 15)))])
    while list(scene.statuses().values()).count(Status.DEAD) < 5:
        await scene.turn()
    scene.clock.move(3600)
    await scene.turn()
    assert scene.sender.sent[-1].timeout_s == 10


async def test_no_more_attempts_begin_within_a_second_than_the_pace_allows() -> None:
    class Paced(Scene):
        per_s = 3

    scene = Paced(kit.answered(200), a=HOOK)
    await scene.intake.process([kit.batch(*(kit.event(number, "a") for number in range(1, 15)))])
    assert [await scene.turn(), await scene.turn()] == [3, 0]
    assert scene.rest_s == 1
    scene.clock.move(1)
    assert await scene.turn() == 3


class _RaisingSender(kit.ScriptedSender):
    """Raises what no sender should, as often as it is asked for the lab of that URL; the others are well."""

    async def send(self, prepared: Prepared) -> AttemptResult:
        if "odd" in prepared.url:
            raise OverflowError("date value out of range")
        return await super().send(prepared)


async def test_what_goes_wrong_in_one_attempt_is_that_attempts_failure(caplog: pytest.LogCaptureFixture) -> None:
    odd = Receiver("https://odd.example/hook", enabled=True, secrets=(kit.SECRET,))
    unusable = Receiver("https://lab.example/hook", enabled=True, secrets=("whsec_no base64",))
    scene = Scene(kit.answered(200), odd=odd, unusable=unusable, well=HOOK)
    scene.sender = _RaisingSender(kit.answered(200))
    scene.dispatch = scene.dispatcher()
    await scene.intake.process([kit.batch(kit.event(1, "odd"), kit.event(2, "unusable"), kit.event(3, "well"))])
    assert await scene.turn() == 3
    assert scene.statuses() == {"id-1": Status.PENDING, "id-2": Status.PENDING, "id-3": Status.DELIVERED}
    (attempt,) = scene.deliveries.kept["id-1"].attempts
    assert (attempt.status_code, attempt.error) == (None, "unexpected OverflowError in Tollgate; its log has the trace")
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]
    for _ in range(9):
        scene.clock.move(5)
        await scene.turn()
    assert scene.statuses()["id-1"] is Status.DEAD
