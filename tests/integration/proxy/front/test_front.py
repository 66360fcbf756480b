"""What a developer's connection meets on a metered route: bytes on raw sockets, through the whole proxy."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from schemas.usage import Outcome
from tests.integration.proxy import gate as gates
from tests.integration.proxy.gate import ASKED, PATH, Gate, raw_request
from tests.integration.proxy.tcp import DONE, USAGE, Line, Received, TcpUpstream, piece, stream_hello
from tests.integration.runtime.http.wire import BOUND_S, Wire

BODY = gates.asked()
LENGTH = f"content-length: {len(BODY)}"
UPGRADES = {
    "h2c": ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    "websocket": ("connection: Upgrade", "upgrade: websocket"),
    "nonsense": ("connection: keep-alive, upgrade", "upgrade: nonsense"),
}


@asynccontextmanager
async def wired(gate: Gate) -> AsyncIterator[Wire]:
    wire = Wire(*await gate.connect())
    try:
        yield wire
    finally:
        wire.writer.transport.abort()


def as_sent(received: Received) -> Any:
    return json.loads(received.body)["messages"]


@pytest.mark.parametrize("asked", UPGRADES.values(), ids=UPGRADES)
async def test_a_call_that_asks_for_an_upgrade(running: Gate, upstream: TcpUpstream, asked: tuple[str, ...]) -> None:
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    async with wired(running) as wire:
        for sent in (raw_request(BODY, LENGTH, *asked), raw_request(chunked, *asked, "transfer-encoding: chunked")):
            await wire.send(sent * 2)
            for _ in range(2):
                answer = await wire.answer()
                assert (answer.status, answer.json()["model"]) == (200, ASKED["model"])
    assert [as_sent(received) for received in upstream.received] == [ASKED["messages"]] * 4
    assert upstream.received[0].header("upgrade") is None


async def test_a_body_that_is_a_request_is_a_body(running: Gate, upstream: TcpUpstream) -> None:
    """Behind a proxy that reuses connections it would else be another caller's."""
    stolen = raw_request(BODY, LENGTH)
    async with wired(running) as wire:
        await wire.send(raw_request(stolen, f"content-length: {len(stolen)}", *UPGRADES["h2c"]))
        assert (await wire.answer()).status == 400
        await wire.send(raw_request(BODY, LENGTH))
        assert (await wire.answer()).status == 200
    assert len(upstream.received) == 1


async def test_a_stream_tells_proxies_to_pass_it_on(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = stream_hello
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED | {"stream": True})
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
        upstream.play = gates_plain
        assert "x-accel-buffering" not in (await client.post(PATH, json=ASKED)).headers


async def gates_plain(_received: Received, line: Line) -> None:
    await line.answer()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_stream_for_a_client_that_has_sent_all_it_will(
    running: Gate, upstream: TcpUpstream, version: str
) -> None:
    upstream.play = stream_hello
    body = gates.asked(stream=True)
    sent = raw_request(body, f"content-length: {len(body)}").replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    async with wired(running) as wire:
        wire.writer.write(sent)
        wire.writer.write_eof()
        answer = await wire.answer()
        assert (answer.headers.get("transfer-encoding") == "chunked") == (version == "1.1")
        assert answer.body.endswith(DONE)
        assert await wire.ended() == b""
    assert (await running.event()).outcome is Outcome.COMPLETE


async def test_ambiguous_framing_reaches_no_upstream(running: Gate, upstream: TcpUpstream) -> None:
    for headers in ((LENGTH, LENGTH), (LENGTH, "transfer-encoding: chunked"), ("transfer-encoding: x, chunked",)):
        async with wired(running) as wire:
            await wire.send(raw_request(BODY, *headers) + raw_request(BODY, LENGTH))
            answer = await wire.answer()
            assert (answer.status, answer.headers["connection"]) == (400, "close")
            assert await wire.ended() == b""
    assert not upstream.received


async def test_a_key_that_is_not_known_costs_no_body(running: Gate) -> None:
    async with wired(running) as wire:
        sent = raw_request(b"", "content-length: 1000000", "expect: 100-continue").replace(b"sky_a", b"sky_b")
        await wire.send(sent)
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert answer.headers["x-request-id"]


async def test_requests_beyond_the_bound_are_told_to_come_again(
    open_gate: Callable[..., Any], upstream: TcpUpstream
) -> None:
    running: Gate = await open_gate(max_in_flight=2, share_in_flight=1)
    arrived, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        arrived.release()
        await go_on.wait()
        await line.answer()

    upstream.play = play
    async with running.client() as client:
        first = [asyncio.create_task(client.post(PATH, json=ASKED)) for _ in range(2)]
        async with asyncio.timeout(BOUND_S):
            for _ in first:
                await arrived.acquire()
        refused = await client.post(PATH, json=ASKED)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "service_unavailable"
        assert refused.headers["x-request-id"]
        go_on.set()
        assert [answer.status_code for answer in await asyncio.gather(*first)] == [200, 200]
        assert (await client.post(PATH, json=ASKED)).status_code == 200


async def test_another_call_is_served_beside_a_stream_that_is_always_ready(
    running: Gate, upstream: TcpUpstream
) -> None:
    served = asyncio.Event()

    async def play(received: Received, line: Line) -> None:
        if b'"stream"' not in received.body:
            await line.answer()
            return
        await line.begin_stream()
        while not served.is_set():
            await line.chunk(piece("x") * 100)
        await line.chunk(USAGE + DONE)
        await line.end_stream()

    upstream.play = play
    async with running.client() as client, client.stream("POST", PATH, json=ASKED | {"stream": True}) as stream:
        async with asyncio.timeout(BOUND_S):
            pieces = stream.aiter_raw()
            await anext(pieces)
            assert (await client.post(PATH, json=ASKED)).status_code == 200
            served.set()
            async for _ in pieces:
                pass
