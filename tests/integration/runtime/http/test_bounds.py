"""Clients that send too much, too slowly, too early, or nothing: bounded, and forgotten when they have gone."""

import asyncio
from typing import Any

import pytest

from runtime import server
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
        for wire in opened:
            wire.reset()
        await wires.until(lambda: wires.connections() == before)


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
async def test_a_connection_is_never_without_a_bound(
    app: Any, sent: bytes, then: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("HEAD_WITHIN_S", "BODY_WITHIN_S", "IDLE_S", "LINGER_S"):
        monkeypatch.setattr(server, bound, 0.3, raising=False)
    async with serving(app) as port, port.wire() as wire:
        await wire.send(sent)
        if then:
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.write(then)
        await wire.ended()


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
        ahead = b"".join(request(method="GET", path=f"/{number}") for number in range(1, 100_000))
        sending = asyncio.create_task(wire.send(ahead))
        await asyncio.sleep(0.3)  # long enough for all of it, were it read
        assert not sending.done(), "4 MB were taken of a client whose turn it is not"
        assert asked == ["/0"]
        go_on.set()
        for number in range(500):
            assert (await wire.answer()).body == b"no", number
        assert asked[:500] == [f"/{number}" for number in range(500)]
        sending.cancel()


async def test_a_client_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_WITHIN_S", 0.3, raising=False)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def large(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(64):
                await send({"type": "http.response.body", "body": b"x" * MIB, "more_body": True})
        finally:
            ended.set_result(None)

    async with serving(large) as port, port.wire() as wire:
        await wire.send(request(method="GET"))
        async with asyncio.timeout(BOUND_S):
            await ended
