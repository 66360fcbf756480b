"""An upstream on a real socket that does what a test wrote down, byte by byte."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PLAIN = (
    b'{"id":"1","model":"their-model","choices":[{"message":{"content":"hello world"}}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":2}}'
)
USAGE = b'data: {"model":"their-model","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


def piece(text: str) -> bytes:
    """Return a chunk of a stream, as the upstream sends it."""
    return b'data: {"model":"their-model","choices":[{"delta":{"content":"%s"}}]}\n\n' % text.encode()


@dataclass
class Received:
    """One request, as it came over the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


@dataclass
class Line:
    """The upstream's end of one connection."""

    writer: asyncio.StreamWriter
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side has closed it."""

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes = PLAIN, status: int = 200, headers: Iterable[tuple[str, str]] = (), *, cut: int = 0
    ) -> None:
        """Send a whole answer, or one that lacks its last `cut` bytes."""
        named = {"content-type": "application/json", "content-length": str(len(body))} | dict(headers)
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        await self.raw(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body[: len(body) - cut])

    async def begin_stream(self, headers: str = "content-type: text/event-stream\r\n") -> None:
        await self.raw(f"HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self.raw(b"0\r\n\r\n")

    def break_off(self) -> None:
        """End the connection as a process does that dies."""
        self.writer.transport.abort()


Play = Callable[[Received, Line], Awaitable[None]]


async def answer_plain(_received: Received, line: Line) -> None:
    await line.answer()


async def stream_hello(_received: Received, line: Line) -> None:
    await line.begin_stream()
    for data in (piece("hello "), piece("world"), USAGE, DONE):
        await line.chunk(data)
    await line.end_stream()


class TcpUpstream:
    """A server of one port; `received` are the requests it got, `connections` how many were made."""

    def __init__(self, play: Play = answer_plain, tls: ssl.SSLContext | None = None) -> None:
        self.play = play
        self._tls = tls
        self.received: list[Received] = []
        self.connections = 0
        self.lines: list[Line] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, self.connections))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        line = Line(writer)
        self.lines.append(line)
        try:
            while not writer.is_closing():
                received = await _read(reader, number)
                self.received.append(received)
                watching = asyncio.create_task(_watch(reader, line))
                try:
                    await self.play(received, line)
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            line.hung_up.set()
        finally:
            writer.close()


async def _watch(reader: asyncio.StreamReader, line: Line) -> None:
    while not reader.at_eof():  # noqa: ASYNC110 - the reader has no event, and the next request must stay in it
        await asyncio.sleep(0.005)
    line.hung_up.set()


async def _read(reader: asyncio.StreamReader, connection: int) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = [(name, value) for name, _, value in (each.partition(": ") for each in head[1:] if each)]
    length = int({name.lower(): value for name, value in headers}.get("content-length", "0"))
    return Received(head[0], headers, await reader.readexactly(length), connection)
