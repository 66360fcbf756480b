"""A clock that steps holds no delivery back, with the whole dispatcher at work (contract 5 and 7)."""

import asyncio
import time
from datetime import UTC, datetime

from runtime import clock
from runtime.clock import SharedClock
from tests.integration.webhooks.scene import PATIENCE_S, dispatching, serving, status
from tests.support.engines import Place
from tests.unit.webhooks import kit
from webhooks.core import signing

HOUR_S = 3600.0


class Machine:
    """This machine's clock, which somebody sets."""

    def __init__(self) -> None:
        self.step_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.step_s

    def present(self) -> datetime:
        return datetime.fromtimestamp(self(), UTC)


async def test_a_step_back_holds_up_neither_the_linger_nor_the_next_attempt_nor_the_pace(place: Place) -> None:
    machine = Machine()
    machine.step_s = HOUR_S
    now = clock.steady(machine)
    async with (
        serving(status(500), status(200)) as receiver,
        dispatching(place, now=now, present=machine.present, batch_size=2, per_s=2) as scene,
    ):
        scene.set_webhook(receiver.url)
        now()
        machine.step_s = 0.0
        async with asyncio.timeout(PATIENCE_S):
            await scene.partition.put(kit.event(1))  # not a whole delivery: it goes when the linger ends
            await scene.until_statuses("delivered")
            await scene.partition.put(*(kit.event(number) for number in range(2, 8)))
            await scene.until_statuses(*["delivered"] * 4)
        # What is signed has the time of now: receivers refuse what is minutes off.
        for one in receiver.received:
            signing.verify(one.headers, one.body, [kit.SECRET], clock.present())


async def test_a_shared_clock_that_is_put_right_holds_nothing_up_either(place: Place) -> None:
    now = SharedClock(clock.present())
    async with (
        serving(status(500), status(200)) as receiver,
        dispatching(place, now=now, present=now.present, batch_size=2) as scene,
    ):
        scene.set_webhook(receiver.url)
        now.set(datetime.fromtimestamp(time.time() + HOUR_S, UTC))
        now()
        now.set(clock.present())
        await scene.partition.put(kit.event(1))
        await scene.until_statuses("delivered")
        for one in receiver.received:
            signing.verify(one.headers, one.body, [kit.SECRET], clock.present())
