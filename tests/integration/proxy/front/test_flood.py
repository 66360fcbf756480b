"""An upstream that sends without end, as fast as it can, outlives no bound."""

import asyncio
from contextlib import suppress

from proxy.core.calls import UpstreamRequest
from proxy.upstream.pool import HttpAnswer, Upstreams

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n' * 200


flooding: set[asyncio.Task[None] | None] = set()


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    flooding.add(asyncio.current_task())
    with suppress(ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
            await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def read_on(upstreams: Upstreams, url: str) -> None:
    answer = await upstreams.open(UpstreamRequest(url, b"{}", "request", None))
    assert isinstance(answer, HttpAnswer)
    try:
        async with asyncio.timeout(0.3):
            while await answer.read_chunk() is not None:
                pass
    finally:
        await answer.close()


async def test_every_bound_holds_against_a_flood() -> None:
    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    upstreams = Upstreams(allow_private=True, connect_timeout_s=5, read_timeout_s=5)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"
    async with asyncio.timeout(30):
        ended = await asyncio.gather(*(read_on(upstreams, url) for _ in range(12)), return_exceptions=True)
    assert [type(error) for error in ended] == [TimeoutError] * 12
    await upstreams.close()
    server.close()
    await asyncio.wait([task for task in flooding if task], timeout=10)
