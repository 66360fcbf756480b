"""The bounds of a request body: its size, its time, and what is held of all at once (contract 3)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.integration.proxy import gate as gates
from tests.integration.proxy.gate import PATH, Gate
from tests.integration.proxy.tcp import Line, Received, TcpUpstream

MAX_BYTES = 16 * 1024 * 1024
FRAME = len(gates.asked(x=""))


def sized(size: int) -> bytes:
    """Return a good body of exactly so many bytes."""
    return gates.asked(x="y" * (size - FRAME))


async def in_chunks(body: bytes, size: int = 1_000_000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Read one answer of a raw connection."""
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, json.loads(body)


async def test_the_bound_is_exact_whether_the_length_is_told_or_not(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        for size, status in ((MAX_BYTES, 200), (MAX_BYTES + 1, 413)):
            assert (await client.post(PATH, content=sized(size))).status_code == status
            answer = await client.post(PATH, content=in_chunks(sized(size)))
            assert answer.status_code == status
    assert answer.json()["error"]["message"] == f"The body is larger than {MAX_BYTES} bytes."
    assert answer.headers["x-request-id"]
    assert [len(received.body) for received in upstream.received] == [
        MAX_BYTES + len("their-model") - len("lab/model")
    ] * 2


async def test_a_length_beyond_the_bound_is_refused_before_the_body_comes(running: Gate) -> None:
    reader, writer = await running.connect()
    writer.write(gates.raw_request(b"", f"content-length: {MAX_BYTES + 1}"))
    status, _, body = await answer_of(reader)
    assert (status, body["error"]["type"]) == (413, "invalid_request_error")
    writer.close()


async def test_a_body_that_does_not_come_in_time(open_gate: Callable[..., Any], upstream: TcpUpstream) -> None:
    running: Gate = await open_gate(body_timeout_s=0.1)
    reader, writer = await running.connect()
    writer.write(gates.raw_request(b'{"model":', "content-length: 100"))
    status, headers, body = await answer_of(reader)
    assert (status, headers["connection"]) == (408, "close")
    assert "0.1 s" in body["error"]["message"]
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    assert not upstream.received
    writer.close()


async def test_a_client_that_goes_within_its_body_costs_nothing(running: Gate, upstream: TcpUpstream) -> None:
    _, writer = await running.connect()
    writer.write(gates.raw_request(b'{"model":', "content-length: 100"))
    await writer.drain()
    writer.close()
    async with running.client() as client:
        assert (await client.post(PATH, json=gates.ASKED)).status_code == 200
    assert len(running.events) == 1


async def test_all_bodies_at_once_stay_under_their_bound(open_gate: Callable[..., Any], upstream: TcpUpstream) -> None:
    running: Gate = await open_gate(max_buffered_bytes=150_000, share_bodies=1)
    arrived, answer_now = asyncio.Event(), asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        if len(upstream.received) == 2:
            arrived.set()
        await answer_now.wait()
        await line.answer()

    upstream.play = play
    async with running.client() as client:
        first = [asyncio.create_task(client.post(PATH, content=sized(60_000))) for _ in range(2)]
        async with asyncio.timeout(10):
            await arrived.wait()
        refused = await client.post(PATH, content=sized(60_000))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "service_unavailable")
        answer_now.set()
        assert [answer.status_code for answer in await asyncio.gather(*first)] == [200, 200]
        assert (await client.post(PATH, content=sized(60_000))).status_code == 200, "the room was not given back"


async def test_a_key_that_sends_large_bodies_faster_than_they_may_be_read_is_refused_before_they_are(
    open_gate: Callable[..., Any],
) -> None:
    running: Gate = await open_gate(max_body_bytes=100_000, parse_bytes_per_s=1024)
    async with running.client() as client:
        assert [(await client.post(PATH, content=sized(90_000))).status_code for _ in range(2)] == [200, 200]
        refused = await client.post(PATH, content=b"[" * 90_000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "share_exceeded")
        assert "large bodies" in refused.json()["error"]["message"]
        assert (await client.post(PATH, content=sized(60_000))).status_code == 200, "small ones are not held up"


async def test_one_workspace_holds_no_more_than_its_share_of_bodies(open_gate: Callable[..., Any]) -> None:
    running: Gate = await open_gate(max_buffered_bytes=250_000)
    async with running.client() as client:
        refused = await client.post(PATH, content=sized(100_000))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "share_exceeded")
        assert "request bodies" in refused.json()["error"]["message"]
        assert (refused.headers["retry-after"], bool(refused.headers["x-request-id"])) == ("1", True)
        assert (await client.post(PATH, content=sized(60_000))).status_code == 200
    assert running.proxy.bodies.taken == 0


async def test_a_large_body_is_given_up_once_it_has_been_sent_and_billed_by_what_it_was(
    open_gate: Callable[..., Any], upstream: TcpUpstream
) -> None:
    running: Gate = await open_gate()
    arrived, answer_now = asyncio.Event(), asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        arrived.set()
        await answer_now.wait()
        await line.answer(b'{"model":"their-model","choices":[{"message":{"content":"hello world"}}]}')

    upstream.play = play
    asked = gates.asked(messages=[{"role": "user", "content": "word" * 500_000}])
    async with running.client() as client, asyncio.timeout(20):
        asking = asyncio.create_task(client.post(PATH, content=asked))
        await arrived.wait()
        while running.proxy.bodies.taken:  # noqa: ASYNC110 - a number is all there is to see
            await asyncio.sleep(0.005)
        answer_now.set()
        assert (await asking).status_code == 200
    assert upstream.received[0].body == asked.replace(b"lab/model", b"their-model")
    assert running.events[0].tokens.input_tokens == 500_000 + 4


async def test_a_large_answer_passes_as_it_came_but_for_its_model(running: Gate, upstream: TcpUpstream) -> None:
    head, rest = b'{"model":"', b'","choices":[{"message":{"content":"%b"}}]}' % (b"word" * 500_000)

    async def play(received: Received, line: Line) -> None:
        status = 400 if b"refuse" in received.body else 200
        await line.answer(head + b"their-model" + rest, status=status)

    upstream.play = play
    async with running.client() as client:
        told = await client.post(PATH, content=gates.asked())
        assert (told.status_code, told.content) == (200, head + b"lab/model" + rest)
        passed = await client.post(PATH, content=gates.asked(user="refuse"))
        assert (passed.status_code, passed.content) == (400, head + b"their-model" + rest)
    assert [event.tokens.output_tokens for event in running.events] == [500_000]


@pytest.mark.parametrize("refusal", ["unknown slug", "bad body", "too large", "broken off"])
async def test_room_is_given_back_whatever_becomes_of_the_body(open_gate: Callable[..., Any], refusal: str) -> None:
    running: Gate = await open_gate(max_body_bytes=100_000, max_buffered_bytes=1_000_000)
    async with running.client() as client:
        match refusal:
            case "unknown slug":
                assert (await client.post(PATH, json={"model": "lab/x"})).status_code == 404
            case "bad body":
                assert (await client.post(PATH, content=b"{")).status_code == 400
            case "too large":
                assert (await client.post(PATH, content=in_chunks(b"x" * 200_000, 10_000))).status_code == 413
            case _:
                _, writer = await running.connect()
                writer.write(gates.raw_request(b"x" * 500, "content-length: 1000"))
                await writer.drain()
                writer.close()
        assert (await client.post(PATH, json=gates.ASKED)).status_code == 200
    async with asyncio.timeout(10):
        while running.proxy.bodies.taken:  # noqa: ASYNC110 - a number is all there is to see
            await asyncio.sleep(0.005)


async def test_a_chunked_body_in_single_bytes(running: Gate, upstream: TcpUpstream) -> None:
    body = gates.asked()
    reader, writer = await running.connect()
    writer.write(gates.raw_request(b"", "transfer-encoding: chunked"))
    for byte in body:
        writer.write(b"1\r\n%c\r\n" % byte)
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert (await answer_of(reader))[0] == 200
    assert json.loads(upstream.received[0].body)["messages"] == gates.ASKED["messages"]
    writer.close()


async def test_a_client_that_asks_before_it_sends(running: Gate) -> None:
    body = gates.asked()
    reader, writer = await running.connect()
    writer.write(gates.raw_request(b"", f"content-length: {len(body)}", "expect: 100-continue"))
    async with asyncio.timeout(10):
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
    writer.write(body)
    assert (await answer_of(reader))[0] == 200
    writer.close()
