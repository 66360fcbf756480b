"""The dispatcher against receivers that answer, fail, hang, lie and go away (contract 5 and 7)."""

import asyncio
from dataclasses import replace
from datetime import date, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from standardwebhooks import Webhook

from domain.positions import PositionLostError
from runtime.http import server
from tests.integration.webhooks import scene as scenes
from tests.integration.webhooks.scene import PATIENT, SHORT, LivePartition, dispatching, hang, serving, status
from tests.support.engines import Place
from tests.unit.webhooks import kit
from webhooks.core import absences
from webhooks.core.deliveries import Status
from webhooks.core.retry import Policy
from webhooks.store import claims, deliveries, tables


async def test_events_arrive_signed_in_order_and_once(place: Place) -> None:
    async with serving(status(200)) as receiver, dispatching(place, batch_size=3) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(*(kit.event(number) for number in range(1, 8)), kit.event(1))
        await scene.until_statuses(*["delivered"] * 3)
        assert sorted(key for one in receiver.received for key in one.keys) == [f"key-{n:06}" for n in range(1, 8)]
        for one in receiver.received:
            Webhook(kit.SECRET).verify(one.body, one.headers)
            assert one.keys == sorted(one.keys)
            assert one.headers["content-type"] == "application/json"
            assert one.headers["host"] in receiver.url
        assert scene.dispatcher.committed(kit.TOPIC, 0) == 9
        (tally,) = scene.database.read_now(lambda connection: deliveries.tallies(connection, date.min, date.max))
        assert (tally.status, tally.events) == (Status.DELIVERED, 7)
        assert (tally.input_tokens, tally.output_tokens) == (28, 56)


async def test_500_then_200_comes_again_with_the_same_bytes_and_id(place: Place) -> None:
    async with serving(status(500), status(200)) as receiver, dispatching(place, policy=PATIENT) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until_statuses("delivered")
        first, second = receiver.received
        assert first.body == second.body
        assert first.headers["x-baseten-request-id"] == second.headers["x-baseten-request-id"]
        assert scene.attempts() == [(1, 500, None), (2, 200, None)]


async def test_a_receiver_that_hangs_ends_as_a_dead_letter_by_the_bound(place: Place) -> None:
    """Attempts are timed out by this machine's time; when the next one is due is told by a clock moved by hand."""
    now = kit.HandClock()
    policy = replace(SHORT, backoff_first_s=0.8, backoff_most_s=0.8)
    async with serving(hang) as receiver, dispatching(place, policy=policy, now=now) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until(lambda: len(scene.attempts()) == 1)
        now.move(0.8)
        await scene.until_statuses("dead")
        # The second has what is left of the bound of 1 s.
        assert scene.attempts() == [(1, None, "no answer within 0.4 s"), (2, None, "no answer within 0.2 s")]
        assert len(receiver.received) == 2
        assert "no success within the 1 s after the first attempt" in scene.deliveries()[0].reason


@pytest.mark.parametrize("code", [301, 307, 400, 401, 404, 410, 422])
async def test_these_answers_end_it_at_once(place: Place, code: int) -> None:
    async with serving(status(200)) as elsewhere:
        moved = status(code, (b"location", elsewhere.url.encode()))
        async with serving(moved) as receiver, dispatching(place) as scene:
            scene.set_webhook(receiver.url)
            await scene.partition.put(kit.event(1))
            await scene.until_statuses("dead")
            assert scene.deliveries()[0].reason == f"answered {code}"
            assert len(receiver.received) == 1
            assert elsewhere.received == []


async def test_retry_after_is_honoured_within_the_bound_and_ends_it_beyond(place: Place) -> None:
    now = kit.HandClock()
    asks = status(429, (b"retry-after", b"14"))
    async with serving(asks, status(200)) as receiver, dispatching(place, policy=Policy(), now=now) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until(lambda: len(scene.attempts()) == 1)
        assert scene.deliveries()[0].next_attempt_at == kit.after(14)
        now.move(14)
        await scene.until_statuses("delivered")
        receiver.answers = [status(503, (b"retry-after", b"15"))]
        await scene.partition.put(kit.event(2))
        await scene.until_statuses("delivered", "dead")
        assert len(receiver.received) == 3


async def test_a_refused_connection_is_tried_again_until_the_receiver_is_back(place: Place) -> None:
    listener = server.listen("127.0.0.1", 0)
    url = f"{server.address_of(listener)}/"
    listener.close()
    async with dispatching(place, policy=PATIENT) as scene:
        scene.set_webhook(url)
        await scene.partition.put(kit.event(1))
        await scene.until(lambda: len(scene.attempts()) >= 2)
        async with serving(status(200)) as receiver:
            scene.set_webhook(receiver.url)
            await scene.until_statuses("delivered")
        assert "ConnectError" in (scene.attempts()[0][2] or "")


async def test_a_big_answer_is_a_success_that_is_not_read(place: Place) -> None:
    big = status(200, body=b"x" * 5_000_000)
    async with serving(big) as receiver, dispatching(place) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until_statuses("delivered")
        assert len(receiver.received) == 1


async def test_a_connection_is_used_again(place: Place) -> None:
    async with serving(status(200)) as receiver, dispatching(place) as scene:
        scene.set_webhook(receiver.url)
        for number in range(1, 6):
            await scene.partition.put(kit.event(number))
            await scene.until_statuses(*["delivered"] * number)
        assert len(receiver.received) == 5
        assert len(receiver.peers) == 1


async def test_without_url_or_disabled_deliveries_are_not_due(place: Place) -> None:
    async with serving(status(200)) as receiver, dispatching(place) as scene:
        scene.set_webhook(None, "a")
        scene.set_webhook(receiver.url, "b", enabled=False)
        await scene.partition.put(kit.event(1, "a"), kit.event(2, "b"), kit.event(3, "unknown"))
        await scene.until_statuses("not_due", "not_due", "not_due")
        scene.set_webhook(receiver.url, "a")
        await scene.partition.put(kit.event(4, "a"))
        await scene.until_statuses("not_due", "not_due", "not_due", "delivered")
        assert [one.keys for one in receiver.received] == [["key-000004"]]


async def test_while_disabled_pending_deliveries_wait_without_attempts(place: Place) -> None:
    now = kit.HandClock()
    async with serving(status(500), status(200)) as receiver, dispatching(place, now=now) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until(lambda: len(scene.attempts()) == 1)
        scene.set_webhook(receiver.url, enabled=False)
        scene.set_webhook(receiver.url, "other")
        now.move(SHORT.backoff_first_s)  # now it is due
        await scene.partition.put(kit.event(2, "other"))
        await scene.until_statuses("pending", "delivered")
        assert len(receiver.received) == 2
        scene.set_webhook(receiver.url)
        await scene.until_statuses("delivered", "delivered")


async def test_a_hanging_receiver_does_not_slow_another_labs(place: Place) -> None:
    calm = dispatching(place, batch_size=1, policy=Policy())
    async with serving(hang) as slow, serving(status(200)) as fast, calm as scene:
        scene.set_webhook(slow.url, "slow")
        scene.set_webhook(fast.url, "fast")
        await scene.partition.put(*(kit.event(number, "slow") for number in range(1, 31)))
        await scene.until(lambda: len(slow.received) >= 4)
        await scene.partition.put(*(kit.event(number, "fast") for number in range(31, 61)))
        await scene.until(lambda: scene.statuses().count("delivered") == 30)
        assert len(fast.received) == 30
        assert scene.attempts() == [(1, 200, None)] * 30, "no attempt that hangs has come to its end"


async def test_private_receivers_are_refused_unless_allowed(place: Place) -> None:
    async with serving(status(200)) as receiver, dispatching(place, allow_private=False) as scene:
        scene.set_webhook("https://127.0.0.1/")
        await scene.partition.put(kit.event(1))
        await scene.until_statuses("dead")
        assert scene.deliveries()[0].reason == "refused: 127.0.0.1 is not a public address (loopback)"
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(2))
        await scene.until_statuses("dead", "dead")
        assert receiver.received == []


async def test_what_was_claimed_when_a_dispatcher_died_is_delivered_after_its_lease(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absences, "SETTLING", timedelta(seconds=0.5))
    partition = LivePartition()
    async with serving(hang, status(200)) as receiver:
        async with dispatching(place, partition=partition) as scene:
            scene.set_webhook(receiver.url)
            await partition.put(kit.event(1))
            await scene.until(lambda: len(receiver.received) == 1)
        with place.open() as opened:
            lapsed = update(tables.DELIVERY).values(claimable_at=kit.START)
            opened.write_now(lambda connection: connection.execute(lapsed))
        async with dispatching(place, partition=partition) as scene:
            scene.set_webhook(receiver.url)
            await scene.until_statuses("delivered")
        assert receiver.received[0].body == receiver.received[1].body
        assert len(receiver.received) == 2


async def test_a_start_that_knows_it_is_alone_does_not_wait_for_the_lease(place: Place) -> None:
    partition = LivePartition()
    async with serving(hang, status(200)) as receiver:
        async with dispatching(place, partition=partition) as scene:
            scene.set_webhook(receiver.url)
            await partition.put(kit.event(1))
            await scene.until(lambda: len(receiver.received) == 1)
        with place.open() as opened:
            assert opened.write_now(claims.free_claims) == 1
            assert opened.write_now(claims.free_claims) == 0
        async with dispatching(place, partition=partition) as scene:
            scene.set_webhook(receiver.url)
            await scene.until_statuses("delivered")
        assert len(receiver.received) == 2


async def test_a_restart_goes_on_from_the_position(place: Place) -> None:
    partition = LivePartition()
    async with serving(status(200)) as receiver:
        for number in (1, 2):
            async with dispatching(place, partition=partition) as scene:
                scene.set_webhook(receiver.url)
                await partition.put(kit.event(number))
                await scene.until_statuses(*["delivered"] * number)
                assert scene.dispatcher.committed(kit.TOPIC, 0) == number + 1
        assert [one.keys for one in receiver.received] == [["key-000001"], ["key-000002"]]


async def test_drain_finishes_what_is_in_flight_and_begins_nothing_more(place: Place) -> None:
    async with serving(hang, status(200)) as receiver, dispatching(place, batch_size=1) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until(lambda: len(receiver.received) == 1)
        draining = asyncio.create_task(scene.dispatcher.drain(scenes.PATIENCE_S))
        receiver.released.set()
        assert await draining
        assert scene.statuses() == ["delivered"]
        await scene.partition.put(kit.event(2))
        await scene.until_statuses("delivered", "pending")
        await scene.tasks[1]
        assert len(receiver.received) == 1


async def test_drain_says_when_it_was_not_in_time(place: Place) -> None:
    async with serving(hang) as receiver, dispatching(place, policy=Policy()) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until(lambda: len(receiver.received) == 1)
        assert not await scene.dispatcher.drain(0.05)


async def test_an_outage_of_the_database_is_ridden_out(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = {"enqueue": 2, "finish": 2}

    def flaky(name: str) -> None:
        work = getattr(deliveries, name)

        def wrapped(*arguments: object) -> object:
            if failures[name]:
                failures[name] -= 1
                raise OperationalError("UPDATE", {}, Exception("disk I/O error"))
            return work(*arguments)

        monkeypatch.setattr(deliveries, name, wrapped)

    flaky("enqueue")
    flaky("finish")
    async with serving(status(200)) as receiver, dispatching(place) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until_statuses("delivered")
        assert len(receiver.received) == 1
    assert failures == {"enqueue": 0, "finish": 0}
    assert [record.message.split(" waits")[0] for record in caplog.records if " waits for" in record.message] == [
        "webhook intake of spool/one",
        "webhook dispatch",
    ]


async def test_a_partition_that_another_worker_took_over_ends_the_follower(place: Place) -> None:
    async with serving(status(200)) as receiver, dispatching(place) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        await scene.until_statuses("delivered")
        moved = update(tables.WEBHOOK_POSITION).values(next_offset=100)
        scene.database.write_now(lambda connection: connection.execute(moved))
        await scene.partition.put(kit.event(2))
        with pytest.raises(PositionLostError):
            await scene.tasks[0]
        assert scene.statuses() == ["delivered"]


async def test_an_error_that_is_no_outage_ends_dispatch(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(deliveries, "finish", broken)
    async with serving(status(200)) as receiver, dispatching(place) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(kit.event(1))
        with pytest.raises(ExceptionGroup) as caught:
            await scene.tasks[1]
        assert caught.group_contains(ValueError, match="a bug")
