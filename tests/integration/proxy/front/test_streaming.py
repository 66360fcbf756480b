"""Streams over TCP: each chunk leaves when it came, ends are billed, clients may go (contract 3)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from schemas.usage import Outcome, Tokens, UsageSource
from tests.integration.proxy import gate as gates
from tests.integration.proxy.gate import ASKED, PATH, Gate
from tests.integration.proxy.tcp import DONE, PLAIN, USAGE, Line, Received, TcpUpstream, piece, stream_hello
from tests.unit.proxy.kit import SLUG

STREAMED = ASKED | {"stream": True}
COUNTED = Tokens(input_tokens=5, output_tokens=2)


def sent(text: str) -> bytes:
    """Return a chunk of a stream, as the client must see it."""
    return piece(text).replace(b"their-model", SLUG.encode())


@asynccontextmanager
async def streaming(client: httpx.AsyncClient, **members: Any) -> AsyncIterator[AsyncIterator[bytes]]:
    async with client.stream("POST", PATH, json=STREAMED | members) as answer:
        assert answer.status_code == 200
        yield answer.aiter_raw()


async def read_until(pieces: AsyncIterator[bytes], wanted: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(10):
        while wanted not in got:
            got += await anext(pieces)
    return got


async def test_the_next_chunk_comes_only_when_the_client_has_the_last_one(running: Gate, upstream: TcpUpstream) -> None:
    """Were any chunk held back for another, both sides would wait for ever."""
    has_it = asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for number in range(30):
            await line.chunk(piece(f"{number}."))
            async with asyncio.timeout(10):
                await has_it.wait()
            has_it.clear()
        await line.chunk(USAGE + DONE)
        await line.end_stream()

    upstream.play = play
    async with running.client() as client:
        for _ in range(2):  # the second one over connections that are there already
            async with streaming(client) as pieces:
                for number in range(30):
                    assert await read_until(pieces, sent(f"{number}.")) == sent(f"{number}.")
                    has_it.set()
                assert await read_until(pieces, DONE) == DONE
    assert upstream.connections == 1


async def test_an_event_is_cut_anywhere_by_the_network(running: Gate, upstream: TcpUpstream) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for byte in piece("hello world") + USAGE + DONE:
            await line.chunk(bytes([byte]))
        await line.end_stream()

    upstream.play = play
    async with running.client() as client:
        answer = await client.post(PATH, json=STREAMED)
    assert answer.content == sent("hello world") + DONE
    assert (await running.event()).tokens == COUNTED


async def test_the_event_is_durable_before_the_last_byte(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = stream_hello
    async with running.client() as client, streaming(client) as pieces:
        await read_until(pieces, DONE)
        assert len(running.events) == 1


async def test_the_sdk_plain(running: Gate) -> None:
    async with running.sdk() as sdk:
        answer = await sdk.chat.completions.create(model=SLUG, messages=ASKED["messages"])
    assert answer.model == SLUG
    assert answer.choices[0].message.content == "hello world"
    assert answer.usage is not None
    assert answer.usage.total_tokens is None or answer.usage.prompt_tokens == 5


async def test_the_sdk_streamed(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = stream_hello
    async with running.sdk() as sdk:
        stream = await sdk.chat.completions.create(model=SLUG, messages=ASKED["messages"], stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello world"
    assert {chunk.model for chunk in chunks} == {SLUG}
    assert [chunk.usage for chunk in chunks] == [None, None]
    assert json.loads(upstream.received[0].body)["stream_options"] == {"include_usage": True}
    event = await running.event()
    assert (event.tokens, event.usage_source, event.stream) == (COUNTED, UsageSource.PROVIDER, True)


async def test_the_sdk_asks_for_the_usage_chunk(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = stream_hello
    async with running.sdk() as sdk:
        stream = await sdk.chat.completions.create(
            model=SLUG, messages=ASKED["messages"], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].model, chunks[-1].choices) == (5, SLUG, [])


async def test_an_upstream_that_breaks_off_ends_in_one_error_event(running: Gate, upstream: TcpUpstream) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        await line.chunk(piece("hello world"))
        await line.chunk(b'data: {"half')
        line.break_off()

    upstream.play = play
    async with running.client() as client:
        answer = await client.post(PATH, json=STREAMED)
    assert answer.content.startswith(sent("hello world") + b'data: {"error":')
    assert answer.content.endswith(b"}\n\n")
    assert answer.content.count(b"data:") == 2
    event = await running.event()
    assert (event.outcome, event.usage_source) == (Outcome.UPSTREAM_ERROR, UsageSource.ESTIMATED)
    assert event.tokens.output_tokens == 3
    async with running.sdk() as sdk:
        stream = await sdk.chat.completions.create(model=SLUG, messages=ASKED["messages"], stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            [chunk async for chunk in stream]


async def test_an_upstream_that_ends_late_holds_nobody_up(running: Gate, upstream: TcpUpstream) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        await line.chunk(piece("hello") + USAGE + DONE)
        await line.hung_up.wait()

    upstream.play = play
    async with running.client() as client, asyncio.timeout(10):
        answer = await client.post(PATH, json=STREAMED)
    assert answer.content.endswith(DONE)
    assert (await running.event()).outcome is Outcome.COMPLETE


async def test_a_plain_answer_that_is_cut_is_a_502(running: Gate, upstream: TcpUpstream) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.answer(PLAIN, cut=5)
        line.break_off()

    upstream.play = play
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert (await running.event()).outcome is Outcome.UPSTREAM_ERROR


# --- the client goes away ---------------------------------------------------------------------------------------------


async def test_a_client_that_goes_is_drained_and_billed_by_the_upstreams_counts(
    running: Gate, upstream: TcpUpstream
) -> None:
    gone = asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        await line.chunk(piece("hello"))
        await gone.wait()
        await line.chunk(piece("world"))
        await line.chunk(USAGE + DONE)
        await line.end_stream()

    upstream.play = play
    async with running.client() as client, streaming(client) as pieces:
        await read_until(pieces, sent("hello"))
    gone.set()
    event = await running.event()
    assert event.tokens == COUNTED
    assert event.usage_source is UsageSource.PROVIDER


@pytest.mark.parametrize("settings", [{"drain_seconds": 0.2}, {"on_disconnect": "cancel"}], ids=["drain", "cancel"])
async def test_a_client_that_goes_and_an_upstream_that_does_not_end(
    upstream: TcpUpstream, open_gate: Callable[..., Any], settings: dict[str, Any]
) -> None:
    running: Gate = await open_gate(**settings)

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        await line.chunk(piece("hello"))
        await line.hung_up.wait()

    upstream.play = play
    async with running.client() as client, streaming(client) as pieces:
        await read_until(pieces, sent("hello"))
    event = await running.event()
    assert (event.outcome, event.usage_source) == (Outcome.CLIENT_DISCONNECTED, UsageSource.ESTIMATED)
    assert event.tokens.output_tokens == 2
    async with asyncio.timeout(10):
        await upstream.lines[0].hung_up.wait()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_goes_before_the_answer_is_billed(
    upstream: TcpUpstream, open_gate: Callable[..., Any], *, streamed: bool
) -> None:
    running: Gate = await open_gate(on_disconnect="cancel")
    asked = asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        asked.set()
        await line.hung_up.wait()

    upstream.play = play
    _, writer = await running.connect()
    body = gates.asked(stream=streamed)
    writer.write(gates.raw_request(body, f"content-length: {len(body)}"))
    async with asyncio.timeout(10):
        await asked.wait()
    writer.close()
    event = await running.event()
    assert event.outcome is Outcome.CLIENT_DISCONNECTED
    assert event.tokens.output_tokens > 0


async def test_a_client_that_stops_reading_is_let_go_and_its_upstream_drained(
    upstream: TcpUpstream, open_gate: Callable[..., Any]
) -> None:
    running: Gate = await open_gate(upstream_idle_timeout_s=0.5)

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for _ in range(400):  # more than all buffers on the way hold
            await line.chunk(piece("x" * 50_000))
        await line.chunk(USAGE + DONE)
        await line.end_stream()

    upstream.play = play
    _, writer = await running.connect()
    body = gates.asked(stream=True)
    writer.write(gates.raw_request(body, f"content-length: {len(body)}"))
    event = await running.event()
    assert (event.outcome, event.usage_source) == (Outcome.CLIENT_DISCONNECTED, UsageSource.PROVIDER)
    writer.transport.abort()


async def test_a_gateway_that_stops_bills_the_stream_it_cuts(tmp_path: Any, upstream: TcpUpstream) -> None:
    begun = asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        await line.chunk(piece("hello"))
        begun.set()
        await line.hung_up.wait()

    upstream.play = play
    async with gates.gate(tmp_path, upstream.base_url) as running:
        _, writer = await running.connect()
        body = gates.asked(stream=True)
        writer.write(gates.raw_request(body, f"content-length: {len(body)}"))
        async with asyncio.timeout(10):
            await begun.wait()
        stopping = running
    async with gates.gate(tmp_path, upstream.base_url) as running:
        assert running.proxy.spool.instance == stopping.proxy.spool.instance
        event = await running.event()
        assert event.outcome is Outcome.GATEWAY_INTERRUPTED
        assert event.tokens.output_tokens > 0
    writer.close()
