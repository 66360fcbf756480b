"""Look-ups that hang: whose they are is bounded, and nobody else's wait for them."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from runtime.lookups import NEGATIVE_S, Lookups


class NameServers:
    """Answers for names; those under `dead` never, until the test is over."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def __call__(self, host: str, port: int) -> Sequence[Any]:
        self.asked.append(host)
        if host.endswith("dead"):
            self.released.wait()
        if host == "unknown":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


@pytest.fixture
def servers() -> Any:
    made = NameServers()
    yield made
    made.released.set()


async def test_name_servers_that_do_not_answer_hold_only_their_own_labs_back(servers: NameServers) -> None:
    lookups = Lookups(at_once=8, share=0.25, ask=servers)
    waiting = [
        asyncio.create_task(lookups.of(lab)(f"{number}.{lab}.dead", 443)) for lab in ("a", "b") for number in (1, 2)
    ]
    await asyncio.sleep(0)
    assert await lookups.of("well")("lab.example", 443) == ["192.0.2.1"]
    with pytest.raises(OSError, match="2 look-ups of this workspace are under way already"):
        await lookups.of("a")("3.a.dead", 443)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    with pytest.raises(OSError, match="under way already"):
        await lookups.of("a")("3.a.dead", 443)
    servers.released.set()
    assert await lookups.of("b")("2.b.dead", 443) == ["192.0.2.1"]


async def test_one_name_is_asked_once_at_a_time_however_many_wait_for_it(servers: NameServers) -> None:
    lookups = Lookups(at_once=8, share=0.25, ask=servers)
    waiting = [asyncio.create_task(lookups.of("a")("lab.dead", 443)) for _ in range(20)]
    await asyncio.sleep(0)
    servers.released.set()
    assert await asyncio.gather(*waiting) == [["192.0.2.1"]] * 20
    assert servers.asked == ["lab.dead"]


async def test_all_look_ups_together_are_bounded(servers: NameServers) -> None:
    lookups = Lookups(at_once=2, share=0.5, ask=servers)
    waiting = [asyncio.create_task(lookups.of(lab)("lab.dead", 443)) for lab in ("a", "b")]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="2 look-ups are under way already"):
        await lookups.of("c")("lab.example", 443)
    servers.released.set()
    await asyncio.gather(*waiting)
    assert await lookups.of("c")("lab.example", 443) == ["192.0.2.1"]


async def test_a_name_that_is_not_known_is_an_error_and_gives_its_place_back(servers: NameServers) -> None:
    now = [0.0]
    lookups = Lookups(at_once=1, share=1.0, ask=servers, steady=lambda: now[0])
    for _ in range(3):
        with pytest.raises(OSError, match="Name or service not known"):
            await lookups.of("a")("unknown", 443)
    assert servers.asked == ["unknown"], "what was not found is not asked for again at once"
    now[0] = NEGATIVE_S
    with pytest.raises(socket.gaierror, match="Name or service not known"):
        await lookups.of("a")("unknown", 443)
    assert servers.asked == ["unknown"] * 2


async def test_a_look_up_has_a_deadline_and_no_second_one_is_made_while_the_first_hangs(servers: NameServers) -> None:
    lookups = Lookups(at_once=8, share=0.25, within_s=0.01, ask=servers)
    for _ in range(3):
        with pytest.raises(TimeoutError, match=r"lab.dead was not looked up within 0.01 s"):
            await lookups.of("a")("lab.dead", 443)
    assert servers.asked == ["lab.dead"]
    assert await lookups.of("a")("lab.example", 443) == ["192.0.2.1"]


async def test_a_name_is_found_again_once_its_name_server_answers(servers: NameServers) -> None:
    ended = threading.Event()

    def ask(host: str, port: int) -> Sequence[Any]:
        try:
            return servers(host, port)
        finally:
            ended.set()

    lookups = Lookups(at_once=1, share=1.0, within_s=0.01, ask=ask)
    with pytest.raises(TimeoutError):
        await lookups.of("a")("lab.dead", 443)
    servers.released.set()
    await asyncio.to_thread(ended.wait)
    found: list[str] = []
    while not found:
        with suppress(TimeoutError):  # the thread has ended, and the loop may not have heard of it yet
            found = await lookups.of("a")("lab.dead", 443)
        await asyncio.sleep(0)
    assert found == ["192.0.2.1"]
