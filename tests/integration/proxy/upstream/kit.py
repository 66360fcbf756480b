"""Calls one upstream, and looks at the connections that are kept for it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from proxy.core.calls import Failure, UpstreamRequest
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.pool import HttpAnswer, Upstreams
from tests.integration.proxy.tcp import TcpUpstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
BODY = b'{"model":"their-model"}'


@dataclass
class Caller:
    upstreams: Upstreams
    url: str

    async def open(self, body: bytes = BODY, url: str | None = None) -> HttpAnswer | Failure:
        return await self.upstreams.open(UpstreamRequest(url or self.url, body, "request-1", None))

    async def answer(self, body: bytes = BODY) -> HttpAnswer:
        opened = await self.open(body)
        assert isinstance(opened, HttpAnswer)
        return opened

    async def whole(self, body: bytes = BODY) -> bytes:
        """Return the whole body of an answer, and give the connection back."""
        answer = await self.answer(body)
        pieces = await rest(answer)
        await answer.close()
        return b"".join(pieces)

    @property
    def connections(self) -> list[UpstreamConnection]:
        return self.upstreams._origins.connections()

    @property
    def kept(self) -> list[UpstreamConnection]:
        return [kept for origin in self.upstreams._origins._origins.values() for kept in origin.kept]


async def rest(answer: HttpAnswer) -> list[bytes]:
    pieces = []
    while (piece := await answer.read_chunk()) is not None:
        pieces.append(piece)
    return pieces


async def until(holds: Callable[[], object]) -> None:
    """Let the event loop go round until this holds."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0)


async def hung_up(server: TcpUpstream, connection: int = 0) -> None:
    """Wait until the other side has ended a connection."""
    async with asyncio.timeout(20):
        await server.lines[connection].hung_up.wait()
