"""How soon the relays see what another process has changed: they look four times a second."""

import asyncio
from typing import Any

import pytest

from control.topic.publisher import ConfigPublisher
from runtime.config.relay import Relay
from tests.integration.runtime.config.kit import Topics
from tests.unit.control.fakes import NOW
from tests.unit.proxy.virtual_time import in_virtual_time

NO_DATABASE: Any = None


class EnoughError(Exception):
    """Ends a relay that would look for ever."""


class Looks:
    """When a relay looked, in seconds after the first look; the third is the last."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def note(self) -> None:
        now = asyncio.get_running_loop().time()
        self.at_s.append(now)
        if len(self.at_s) == 3:
            raise EnoughError

    @property
    def after_s(self) -> list[float]:
        return [at - self.at_s[0] for at in self.at_s]


@in_virtual_time
async def test_the_relay_of_a_process_looks_four_times_a_second() -> None:
    looks = Looks()

    class Looking(Relay):
        async def step(self) -> None:
            looks.note()

    with pytest.raises(EnoughError):
        await Looking(NO_DATABASE, 0, []).run()
    assert looks.after_s == pytest.approx([0, 0.25, 0.5])


@in_virtual_time
async def test_the_relay_to_kafka_looks_four_times_a_second() -> None:
    looks, topics = Looks(), Topics()

    class Looking(ConfigPublisher):
        async def take_over(self) -> None:
            """Begin with nothing."""

        async def step(self) -> bool:
            looks.note()
            return False

    with pytest.raises(EnoughError):
        await Looking(NO_DATABASE, topics, topics, topics.end_of_config, lambda: NOW).run()
    assert looks.after_s == pytest.approx([0, 0.25, 0.5])
