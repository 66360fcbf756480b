"""HTTP/1.0, clients that have sent all they will, and clients that ask before they send."""

import asyncio
from typing import Any

import pytest

from tests.integration.runtime.http.wire import BOUND_S, Wire, echo, request, serving


async def pieces(scope: Any, receive: Any, send: Any) -> None:
    """Answer piece by piece, without a length."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for piece in (b"one", b"", b"two"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"three"})


@pytest.mark.parametrize("asked", [(), ("connection: keep-alive",)], ids=["plain", "keep-alive"])
async def test_http_1_0_gets_no_coding_and_the_end_is_the_end(asked: tuple[str, ...]) -> None:
    async with serving(pieces) as port, port.wire() as wire:
        await wire.send(request(*asked, method="GET", version="1.0"))
        answer = await wire.answer()
        assert "transfer-encoding" not in answer.headers
        assert (answer.headers["connection"], answer.body) == ("close", b"onetwothree")


async def test_http_1_0_without_a_host() -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(b"POST /a HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc")
        answer = await wire.answer()
        assert (answer.headers["connection"], answer.json()["body"]) == ("close", "abc")
        assert await wire.ended() == b""


async def test_http_1_1_gets_chunks_and_keeps_its_connection() -> None:
    async with serving(pieces) as port, port.wire() as wire:
        for _ in range(2):
            await wire.send(request(method="GET"))
            answer = await wire.answer()
            assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"onetwothree")


async def test_who_wants_the_connection_closed_is_told_and_it_is() -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(request("connection: close", method="GET") + request(method="GET", path="/more"))
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await wire.ended() == b""


async def test_head_has_the_head_alone() -> None:
    async with serving(pieces) as port, port.wire() as wire:
        await wire.send(request(method="HEAD") + request(method="GET"))
        assert (await wire.answer(bodiless=True)).status == 200
        assert (await wire.answer()).body == b"onetwothree"


async def late(scope: Any, receive: Any, send: Any) -> None:
    """Answer when the client has had time to say that it sends no more."""
    await asyncio.sleep(0.2)
    await pieces(scope, receive, send)


@pytest.mark.parametrize("app", [echo, pieces, late])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_that_has_sent_all_it_will_gets_its_answer(app: Any, version: str) -> None:
    async with serving(app) as port, port.wire() as wire:
        wire.writer.write(request("content-length: 3", body=b"abc", version=version))
        wire.writer.write_eof()
        answer = await wire.answer()
        assert answer.status == 200
        assert answer.json()["body"] == "abc" if app is echo else answer.body == b"onetwothree"
        assert await wire.ended() == b""


async def test_all_that_such_a_client_has_asked_is_answered() -> None:
    async with serving(late) as port, port.wire() as wire:
        wire.writer.write(request(method="GET") * 3)
        wire.writer.write_eof()
        assert [(await wire.answer()).body for _ in range(3)] == [b"onetwothree"] * 3
        assert await wire.ended() == b""


async def test_the_answer_of_such_a_client_may_take_long() -> None:
    """Meanwhile it is asked whether it is still there: by an interim answer, which each must be able to read."""
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await pieces(scope, receive, send)

    async with serving(slow) as port, port.wire() as wire:
        wire.writer.write(request(method="GET"))
        wire.writer.write_eof()
        assert (await wire.head())[1] == 100
        go_on.set()
        assert (await wire.answer()).body == b"onetwothree"


async def test_such_a_client_gets_the_rest_of_a_stream_too() -> None:
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with serving(slow) as port, port.wire() as wire:
        await wire.send(request(method="GET"))
        await wire.head()
        async with asyncio.timeout(BOUND_S):
            pieces = wire.chunks()
            assert await anext(pieces) == b"one"
            wire.writer.write_eof()
            asyncio.get_running_loop().call_later(0.5, go_on.set)
            assert [piece async for piece in pieces] == [b"two"]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_goes_is_told_from_one_that_sends_no_more(begun: bool) -> None:
    gone, there = asyncio.Event(), asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        there.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with serving(waits) as port, port.wire() as wire:
        await wire.send(request(method="GET"))
        async with asyncio.timeout(BOUND_S):
            await there.wait()
            if begun:
                await wire.reader.readuntil(b"begun\r\n")
            wire.writer.close()
            await gone.wait()


async def test_a_body_that_ends_too_early_gets_no_answer_of_the_application() -> None:
    async with serving(echo) as port, port.wire() as wire:
        wire.writer.write(request("content-length: 5", body=b"abc"))
        wire.writer.write_eof()
        assert b" 200 " not in await wire.ended()


async def read_expecting(wire: Wire) -> int:
    return (await wire.head())[1]


@pytest.mark.parametrize("name", ["100-continue", "100-Continue"])
async def test_who_asks_before_it_sends_is_told_to(name: str) -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(request("content-length: 3", f"expect: {name}"))
        assert await read_expecting(wire) == 100
        await wire.send(b"abc")
        assert (await wire.answer()).json()["body"] == "abc"
        await wire.send(request("content-length: 3", f"expect: {name}", body=b"abc"))
        assert (await wire.answer()).json()["body"] == "abc", "who does not wait is not told"


async def test_who_asks_and_is_refused_must_not_send() -> None:
    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with serving(refuses) as port, port.wire() as wire:
        await wire.send(request("content-length: 3", "expect: 100-continue"))
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        await wire.send(request(path="/next"))
        assert await wire.ended() == b""


@pytest.mark.parametrize("expected", ["200-ok", "100-continue, 200-ok", "nothing"])
async def test_what_else_is_expected_cannot_be_met(expected: str) -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(request("content-length: 3", f"expect: {expected}"))
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (417, "close")
        assert await wire.ended() == b""


async def test_an_expectation_of_http_1_0_is_none() -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(request("content-length: 3", "expect: 100-continue", version="1.0"))
        await wire.send(b"abc")
        assert (await wire.answer()).json()["body"] == "abc"
