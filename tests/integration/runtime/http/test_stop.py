"""The orderly end of a port: nothing new, what is under way within its grace, then it is cut off and counted."""

import asyncio
from typing import Any

import pytest

from runtime.http.bounds import BodyFault, Bounds
from runtime.http.exchange import Exchange, Route
from tests.integration.runtime.http import wire as wires
from tests.integration.runtime.http.wire import BOUND_S, echo, request, serving


async def test_idle_connections_end_at_once_and_nothing_is_accepted() -> None:
    async with serving(echo) as port:
        idle = [await port.connect() for _ in range(3)]
        await idle[0].send(request(method="GET"))
        await idle[0].answer()
        await wires.until(lambda: port.server.connections == 3)
        port.server.stop()
        for wire in idle:
            assert await wire.ended() == b""
            wire.writer.close()
        await wires.until(lambda: port.server.connections == 0)
        with pytest.raises(OSError):
            await port.connect()
        assert port.server.cut_off == 0


async def test_a_request_under_way_is_answered_and_its_connection_closed() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go_on.wait()
        await echo(scope, receive, send)

    async with serving(slow) as port, port.wire() as wire:
        await wire.send(request(method="GET") * 2)
        async with asyncio.timeout(BOUND_S):
            await begun.wait()
        port.server.stop()
        await wires.until(lambda: port.server.is_stopping)
        go_on.set()
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await wire.ended() == b""
        assert port.server.cut_off == 0


async def test_what_does_not_end_within_the_grace_is_cut_off_and_counted() -> None:
    begun, ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            ended.release()

    async with serving(endless) as port, port.wire() as wire:
        await wire.send(request(method="GET"))
        gone = await port.connect()
        await gone.send(request(method="GET"))
        async with asyncio.timeout(BOUND_S):
            for _ in range(2):
                await begun.acquire()
            gone.reset()
            port.server.stop()
            assert await wire.ended() == b""
            for _ in range(2):
                await ended.acquire()
        assert port.server.cut_off == 2, "one whose client has gone is under way too"
        await wires.until(lambda: port.server.connections == 0)


@pytest.mark.parametrize(
    ("half", "answered"),
    [
        (b"GET / HTTP/1.1\r\nx-half: ", b""),
        (request("content-length: 100", body=b"x"), b"HTTP/1.1 408 "),
    ],
    ids=["head", "body"],
)
async def test_a_request_that_is_half_there_does_not_hold_the_end_up(half: bytes, answered: bytes) -> None:
    async def reads(exchange: Exchange) -> None:
        fault = await exchange.body()
        assert isinstance(fault, BodyFault)
        exchange.refuse(fault.status, fault.value)

    routes = {b"/a": {b"POST": Route(reads)}}
    async with serving(echo, grace_s=3600, routes=routes, bounds=Bounds(stopping_s=0.1)) as port, port.wire() as wire:
        await wire.send(half)
        await wires.until(lambda: any(each._reader.incoming for each in port.server._connections))
        port.server.stop()
        assert (await wire.ended())[: len(answered) or None] == answered
        assert port.server.cut_off == 0
