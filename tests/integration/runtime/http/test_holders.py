"""Clients that hold what they do not use: connections without a request, and answers that they read byte by byte."""

import asyncio
import socket
import time
from typing import Any

from runtime.http.bounds import Bounds
from runtime.http.exchange import Exchange, Route
from tests.integration.runtime.http import wire as wires
from tests.integration.runtime.http.wire import BOUND_S, echo, request, serving

MIB = 1024 * 1024


async def test_connections_beyond_the_bound_are_told_so() -> None:
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        begun.release()
        await go_on.wait()
        await echo(scope, receive, send)

    async with serving(waits, bounds=Bounds(max_connections=2)) as port:
        async with port.wire() as first, port.wire() as second:
            for wire in (first, second):
                await wire.send(request(method="GET"))
                await begun.acquire()
            async with port.wire() as third:
                answer = await third.answer()
                assert (answer.status, answer.headers["retry-after"], await third.ended()) == (503, "1", b"")
            go_on.set()
            for wire in (first, second):
                assert (await wire.answer()).status == 200
        await wires.until(lambda: port.server.connections == 0)
        async with port.wire() as wire:
            await wire.send(request(method="GET"))
            assert (await wire.answer()).status == 200


async def test_who_holds_connections_without_a_request_keeps_nobody_out() -> None:
    """The oldest without a request gives way: idle, half a head, or nothing at all; one with a request never does."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            begun.set()
            await go_on.wait()
        await echo(scope, receive, send)

    async with serving(waits, bounds=Bounds(max_connections=4)) as port, port.wire() as slow:
        await slow.send(request(method="GET", path="/slow"))
        await begun.wait()
        held = [await port.connect() for _ in range(3)]
        await held[0].send(request(method="GET"))
        await held[0].answer()
        await held[1].send(b"GET / HTTP/1.1\r\nx-half: ")
        await wires.until(lambda: port.server.connections == 4)
        for wire in tuple(held):
            innocent = await port.connect()
            held.append(innocent)
            await innocent.send(request(method="GET"))
            assert (await innocent.answer()).status == 200
            assert await wire.ended() == b""
        for wire in held:
            wire.writer.close()
        go_on.set()
        assert (await slow.answer()).status == 200


async def test_a_client_that_reads_byte_by_byte_is_cut_off() -> None:
    """What it takes is no reason to wait on: it could hold the answer for days."""

    async def large(exchange: Exchange) -> None:
        exchange.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await exchange.answer(200, [], bytes(64 * MIB))

    def read_slowly(address: tuple[str, int]) -> bool:
        """Return whether the server ended the connection before 128 KiB were read."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.settimeout(BOUND_S)
            client.connect(address)
            client.sendall(request())
            try:
                for _ in range(512):
                    if not client.recv(256):
                        return True
                    time.sleep(0.02)  # the pace is what is tested
            except ConnectionError:
                return True
        return False

    async with serving(echo, routes={b"/a": {b"POST": Route(large)}}, bounds=Bounds(write_within_s=0.5)) as port:
        assert await asyncio.to_thread(read_slowly, (port.host, port.port))
