"""Clients that send too much, too slowly, too early, or nothing: bounded, and forgotten when they have gone."""

import asyncio
import gc
import socket
from typing import Any

import pytest

from runtime.http.bounds import BodyFault, Bounds
from runtime.http.exchange import PIECE_BYTES, Exchange, PathRoute, Routes
from runtime.http.server import ACCEPTED_A_ROUND
from runtime.memory_files import MemoryFile
from runtime.shares import Shares
from tests.integration.runtime.http import wire as wires
from tests.integration.runtime.http.wire import BOUND_S, echo, request, serving

MIB = 1024 * 1024


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    """Answer without a look at the body."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


ENDLESS = {
    "headers": (request()[:-2], b"x-a: %b\r\n" % (b"b" * 8000)),
    "one header": (request()[:-2] + b"x-a: ", b"b" * 8000),
    "target": (b"GET /", b"b" * 8000),
    "trailers": (request("transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\n"), b"x-a: %b\r\n" % (b"b" * 8000)),
    "one trailer": (request("transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\nx-a: "), b"b" * 8000),
    "a chunk's extension": (request("transfer-encoding: chunked", body=b"3;a="), b"b" * 8000),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
async def test_what_has_no_end_ends_the_connection(begin: bytes, more: bytes) -> None:
    async with serving(echo) as port, port.wire() as wire:
        wire.writer.write(begin)
        with pytest.raises(ConnectionError):
            for _ in range(20 * MIB // len(more)):
                await wire.send(more)
                await asyncio.sleep(0)


@pytest.mark.parametrize("app", [echo, refuses])
async def test_a_connection_that_was_reset_is_forgotten_at_once(app: Any) -> None:
    async with serving(app) as port:
        before = wires.connections()
        opened = [await port.connect() for _ in range(5)]
        for wire in opened:
            await wire.send(request(method="GET"))
            await wire.answer()
        await wires.until(lambda: wires.connections() - before == 5)
        gc.collect()
        gc.disable()  # at once, and not when the collector comes round
        try:
            for wire in opened:
                wire.reset()
            await wires.until(lambda: wires.connections() == before)
        finally:
            gc.enable()


AFTER = {
    "an empty line": (request(method="GET"), b"\r\n"),
    "one byte of a body that is not wanted": (request("content-length: 100"), b"x"),
    "half a head": (request(method="GET"), b"GET /"),
    "nothing": (request(method="GET"), b""),
    "a body that stops": (request("content-length: 100", body=b"x"), b""),
    "a chunked body that stops": (request("transfer-encoding: chunked", body=b"1\r\nx\r\n"), b""),
}


@pytest.mark.parametrize("app", [echo, refuses])
@pytest.mark.parametrize(("sent", "then"), AFTER.values(), ids=AFTER)
async def test_a_connection_is_never_without_a_bound(app: Any, sent: bytes, then: bytes) -> None:
    idle_s = 1000 if then else 0.3  # what has begun is not idle any more
    bounds = Bounds(head_within_s=0.3, body_within_s=0.3, idle_s=idle_s, linger_s=0.3)
    async with serving(app, bounds=bounds) as port, port.wire() as wire:
        await wire.send(sent)
        if then:
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.write(then)
        await wire.ended()
        await wires.until(lambda: port.server.connections == 0)


async def test_of_many_requests_at_once_few_are_parsed_ahead() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go_on.wait()
        await refuses(scope, receive, send)

    async with serving(waits) as port, port.wire() as wire:
        wire.writer.write(request(method="GET") * 8000)
        async with asyncio.timeout(BOUND_S):
            await begun.wait()
            await asyncio.sleep(0.3)  # long enough for all of it, were it parsed
            assert sum(isinstance(each, Exchange) for each in gc.get_objects()) < 1000
            go_on.set()
            for _ in range(8000):
                assert (await wire.answer()).status == 401


async def test_who_asks_ahead_is_answered_in_turn_and_read_no_further() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    asked: list[str] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        begun.set()
        await go_on.wait()
        await refuses(scope, receive, send)

    async with serving(waits) as port, port.wire() as wire:
        await wire.send(request(method="GET", path="/0"))
        async with asyncio.timeout(BOUND_S):
            await begun.wait()
        ahead = b"".join(request(method="GET", path=f"/{number}") for number in range(1, 1_000_000))
        sending = asyncio.create_task(wire.send(ahead))
        await asyncio.sleep(0.3)  # long enough for all of it, were it read
        assert not sending.done(), "30 MB were taken of a client whose turn it is not"
        assert asked == ["/0"]
        go_on.set()
        for number in range(500):
            assert (await wire.answer()).body == b"no", number
        assert asked[:500] == [f"/{number}" for number in range(500)]
        sending.cancel()


async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def large(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(64):
                await send({"type": "http.response.body", "body": b"x" * MIB, "more_body": True})
        finally:
            ended.set_result(None)

    async with serving(large, bounds=Bounds(write_within_s=0.3)) as port, port.wire() as wire:
        await wire.send(request(method="GET"))
        async with asyncio.timeout(BOUND_S):
            await ended


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nx-half: "])
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    async with serving(echo, bounds=Bounds(head_within_s=0.3)) as port, port.wire() as wire:
        await wire.send(sent)
        assert await wire.ended() == b""


async def test_an_idle_connection_between_two_requests_is_no_late_head() -> None:
    async with serving(echo, bounds=Bounds(head_within_s=0.3)) as port, port.wire() as wire:
        for _ in range(2):
            await wire.send(request(method="GET"))
            assert (await wire.answer()).status == 200
            await asyncio.sleep(0.7)  # longer than a head may take: the pause itself is what is tested


def routed(handler: Any, **rules: Any) -> Routes:
    return {b"/a": {b"POST": PathRoute(handler, **rules)}}


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_a_whole_answer_is_whole_whatever_its_size(size: int) -> None:
    async def whole(exchange: Exchange) -> None:
        await exchange.answer(200, [], bytes(size))

    async with serving(echo, routes=routed(whole)) as port, port.wire() as wire:
        for _ in range(2):
            await wire.send(request())
            assert (await wire.answer()).body == bytes(size)


async def test_of_a_large_answer_little_is_kept_for_a_client_that_does_not_read() -> None:
    connections: list[Any] = []

    async def large(exchange: Exchange) -> None:
        connections.append(exchange.transport)
        await exchange.answer(200, [], bytes(64 * MIB))

    async with serving(echo, routes=routed(large), bounds=Bounds(write_within_s=0.3)) as port, port.wire() as wire:
        await wire.send(request())
        await wires.until(lambda: connections and connections[0].get_write_buffer_size())
        assert connections[0].get_write_buffer_size() <= 2 * PIECE_BYTES
        await wires.until(lambda: port.server.connections == 0)


BODIES = {
    "told": request("content-length: 2000"),
    "chunked": request("transfer-encoding: chunked", body=b"7d0\r\n%b\r\n0\r\n\r\n" % bytes(2000)),
}


@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES)
async def test_a_body_beyond_its_routes_bound(sent: bytes) -> None:
    faults: list[Any] = []

    async def reads(exchange: Exchange) -> None:
        faults.append(await exchange.body())
        await exchange.answer(413, [], b"")

    bodies = Shares(10_000)
    async with serving(echo, routes=routed(reads, max_body_bytes=1999, bodies=bodies)) as port, port.wire() as wire:
        await wire.send(sent)
        answer = await wire.answer()
        assert (answer.status, faults) == (413, [BodyFault.TOO_LARGE])
        assert ("connection" in answer.headers) == (sent is BODIES["told"]), "what may still come is no request"
    await wires.until(lambda: bodies.taken == 0)


async def test_a_bodys_room_is_held_until_its_request_is_over_also_when_its_client_has_gone() -> None:
    read, gone, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def holds(exchange: Exchange) -> None:
        exchange.on_gone(gone.set)
        await exchange.body("lab")
        read.set()
        await go_on.wait()

    bodies = Shares(10_000)
    async with serving(echo, routes=routed(holds, bodies=bodies)) as port:
        wire = await port.connect()
        await wire.send(request("content-length: 2000", body=bytes(2000)))
        async with asyncio.timeout(BOUND_S):
            await read.wait()
            wire.reset()
            await gone.wait()
        assert bodies.held("lab") == 2000
        go_on.set()
        await wires.until(lambda: bodies.taken == 0)


async def test_a_body_that_nobody_wants_yet_is_read_ahead_by_no_more_than_its_bound() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    sizes: list[int] = []
    exchanges: list[Exchange] = []

    async def waits(exchange: Exchange) -> None:
        exchanges.append(exchange)
        begun.set()
        await go_on.wait()
        body = await exchange.body("lab")
        assert isinstance(body, MemoryFile), "it is not copied by the event loop, nor held in its heap"
        assert bodies.held("lab") == 30 * MIB
        sizes.append(len(body))
        await exchange.answer(200, [], b"")

    bodies = Shares(100 * MIB)
    async with serving(echo, routes=routed(waits, bodies=bodies)) as port, port.wire() as wire:
        sending = asyncio.create_task(wire.send(request(f"content-length: {30 * MIB}", body=bytes(30 * MIB))))
        async with asyncio.timeout(BOUND_S):
            await begun.wait()
            await asyncio.sleep(0.3)  # long enough for all of it, were it read
            assert bodies.taken == 0, "what is read ahead is nobody's"
            assert exchanges[0].size < MIB
            go_on.set()
            assert (await wire.answer()).status == 200
            await sending
        assert sizes == [30 * MIB]


async def test_of_many_first_connections_several_are_taken_in_each_round() -> None:
    async with serving(echo) as port:
        async with port.wire():
            await wires.until(lambda: port.server.connections == 1)
        await wires.until(lambda: port.server.connections == 0)
        waiting = [socket.create_connection(("127.0.0.1", port.port)) for _ in range(64)]  # the loop stands still
        rounds = 0
        while port.server.connections < len(waiting):
            await asyncio.sleep(0)
            rounds += 1
        for each in waiting:
            each.close()
    assert rounds <= len(waiting) // ACCEPTED_A_ROUND + 4, "some to take the first, and to make the last's protocol"


async def test_a_handler_that_fails_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(exchange: Exchange) -> None:
        if await exchange.body() == b"late":
            exchange.begin(200, [])
        raise ValueError("a fault of ours")

    async with serving(echo, routes=routed(fails)) as port:
        async with port.wire() as wire:
            await wire.send(request("content-length: 5", body=b"early"))
            answer = await wire.answer()
            assert (answer.status, answer.headers["connection"]) == (500, "close")
        async with port.wire() as wire:
            await wire.send(request("content-length: 4", body=b"late"))
            assert b"0\r\n\r\n" not in await wire.ended(), "a part was passed off as the whole"
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["a fault of ours"] * 2


async def test_routes_are_found_by_what_a_target_means() -> None:
    async def found(exchange: Exchange) -> None:
        await exchange.answer(200, [], b"found")

    async with serving(refuses, routes={b"/a b": {b"POST": PathRoute(found)}}) as port, port.wire() as wire:
        for path in ("/a%20b", "/a%20b/", "/a%20b?c=/d", "http://x/a%20b"):
            await wire.send(request(path=path))
            assert (await wire.answer()).body == b"found", path
        for method, path in (("GET", "/a%20b"), ("POST", "/a%2520b"), ("POST", "/a%20b/c"), ("POST", "//a%20b")):
            await wire.send(request(path=path, method=method))
            assert (await wire.answer()).body == b"no", path
