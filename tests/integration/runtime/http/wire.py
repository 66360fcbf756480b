"""A client that writes bytes as they stand, and an application that tells what it was given."""

import asyncio
import gc
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from runtime.http import server

BOUND_S = 30
"""Longer than anything here takes, shorter than what is kept open by mistake."""


@dataclass(frozen=True)
class Answer:
    """One answer, its body without the transfer coding."""

    status: int
    headers: dict[str, str]
    body: bytes
    version: str = "HTTP/1.1"

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Wire:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[str, int, dict[str, str]]:
        async with asyncio.timeout(BOUND_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        return version, int(status), {name.lower(): value for name, value in (_field(line) for line in lines[1:-2])}

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """Read one answer by its framing."""
        version, status, headers = await self.head()
        body = b""
        async with asyncio.timeout(BOUND_S):
            if bodiless or status in (204, 304):
                pass
            elif headers.get("transfer-encoding") == "chunked":
                body = b"".join([piece async for piece in self.chunks()])
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(status, headers, body, version)

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        assert await self.reader.readexactly(2) == b"\r\n"

    async def ended(self) -> bytes:
        """Wait until the other side has ended the connection; return what it sent until then."""
        got = b""
        async with asyncio.timeout(BOUND_S):
            with suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    got += piece
        return got

    def reset(self) -> None:
        """End the connection as a machine does that has forgotten it."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()


@dataclass
class Port:
    """A server under test."""

    server: server.Server
    host: str
    port: int

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        opened = await self.connect()
        try:
            yield opened
        finally:
            opened.writer.transport.abort()  # whatever it has not sent
            with suppress(ConnectionError):
                await opened.writer.wait_closed()

    async def connect(self) -> Wire:
        return Wire(*await asyncio.open_connection(self.host, self.port))


@asynccontextmanager
async def serving(app: Any, *, grace_s: float = 1, **options: Any) -> AsyncIterator[Port]:
    listener = server.listen("127.0.0.1", 0)
    running = server.Server(app, listener, grace_s=grace_s, **options)
    task = asyncio.create_task(running.run_until_stopped())
    host, port = listener.getsockname()[:2]
    try:
        yield Port(running, host, port)
    finally:
        await server.stop_all([running], [task])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was asked."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    told = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "version": scope["http_version"],
        "body": body.decode("latin-1"),
    }
    text = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


def request(*headers: str, body: bytes = b"", method: str = "POST", path: str = "/a", version: str = "1.1") -> bytes:
    """Return a request as bytes; its length is not among the headers unless it is given."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "host: x", *headers, "", ""]).encode("latin-1") + body


def connections() -> int:
    """Count the connections' objects that this process still holds."""
    return sum(type(each).__name__ in ("BoundedProtocol", "Connection") for each in gc.get_objects())


async def until(holds: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> None:
    """Wait until something holds that nothing tells of."""
    async with asyncio.timeout(BOUND_S):
        while True:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)
