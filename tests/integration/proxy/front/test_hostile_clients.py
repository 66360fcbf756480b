"""Clients that send heads without end, or never read: bounded, and cut off, while others are served."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from proxy import routes
from proxy.core.replies import Reply
from proxy.routes import BodyBudget, BodyRules, HttpClient
from runtime import server


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[tuple[str, int]]:
    listener = server.listen("127.0.0.1", 0)
    running = server.Server(app, listener, grace_s=1)
    task = asyncio.create_task(running.run_until_stopped())
    try:
        yield listener.getsockname()[:2]
    finally:
        await server.stop_all([running], [task])


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def test_a_head_without_end_is_refused_and_the_connection_closed() -> None:
    async with serving(hello) as (host, port), asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n")
        sent = 0
        with suppress(ConnectionError):  # the refusal may meet what is still on its way
            while sent < 10 * 1024 * 1024:
                writer.write(b"x-a: %b\r\n" % (b"b" * 8000))
                await writer.drain()
                await asyncio.sleep(0)
                sent += 8000
            pytest.fail("a head of 10 MiB was taken")
        with suppress(ConnectionError):
            assert (await reader.readline()) in (b"", b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        writer.close()


async def test_a_head_that_does_not_come_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_WITHIN_S", 0.05)
    async with serving(hello) as (host, port), asyncio.timeout(20):
        for sent in (b"", b"GET / HTTP/1.1\r\nx-half: "):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(sent)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()


async def test_an_idle_connection_between_two_requests_is_no_late_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_WITHIN_S", 0.2)
    async with serving(hello) as (host, port), asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(host, port)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"hi")
            passed = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.3, passed.set_result, None)
            await passed
        writer.close()


async def test_a_client_that_never_reads_is_felt_and_cut_off() -> None:
    rules = BodyRules(max_bytes=1000, within_s=5, budget=BodyBudget(10_000))
    ended = asyncio.Event()

    async def large(scope: Any, receive: Any, send: Any) -> None:
        client = HttpClient(scope, receive, send, rules)
        try:
            async with asyncio.timeout(0.2):
                await client.reply(Reply(200, [], b"x" * 64 * 1024 * 1024))
        except TimeoutError:
            ended.set()
        finally:
            client.close()

    async with serving(large) as (host, port), asyncio.timeout(20):
        deaf = socket.create_connection((host, port))
        deaf.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await ended.wait()
        deaf.setblocking(False)  # noqa: FBT003 (the standard library's own signature)
        loop = asyncio.get_running_loop()
        taken = 0
        with suppress(ConnectionResetError):
            while piece := await loop.sock_recv(deaf, 1 << 20):
                taken += len(piece)
        deaf.close()
        assert taken < 32 * 1024 * 1024, "what it did not read was thrown away, not kept for it"


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 17])
async def test_a_reply_in_pieces_is_the_whole_reply(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_PIECE_BYTES", 8)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "headers": []}
    client = HttpClient(scope, hello, send, BodyRules(max_bytes=1, within_s=1, budget=BodyBudget(1)))  # type: ignore[arg-type]
    body = bytes(range(size))
    await client.reply(Reply(200, [], body))
    pieces = [message["body"] for message in sent[1:]]
    assert b"".join(pieces) == body
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(pieces) - 1) + [False]
    assert all(len(piece) <= 8 for piece in pieces)
