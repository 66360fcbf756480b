"""An upstream that streams: `python -m infra.bench.paced PACED_PORT BURST_PORT` (never used but by the bench).

The first port sends a chunk each `PACE_S`, to each stream's own schedule, the second all at once. Each chunk says when
it left, in nanoseconds of the machine's monotonic clock, so that whoever reads it knows how long it was under way.
"""

import asyncio
import sys
import time
from functools import partial

import uvloop

PACE_S = 0.004
CHUNKS = 100
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"upstream-model",'
    b'"choices":[{"index":0,"delta":{"content":"at %d "},"finish_reason":%s}]}\n\n'
)
_END = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"upstream-model",'
    b'"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46}}\n\ndata: [DONE]\n\n'
)


class Count:
    """How many streams were begun, over both ports."""

    streams = 0


class Streams(asyncio.Protocol):
    """One connection: each request is answered by a stream."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: Count, pace_s: float) -> None:
        self._loop, self._count, self._pace_s = loop, count, pace_s
        self._got = b""
        self._left = 0
        self._due = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Be connected."""
        self._transport = transport
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Send nothing more."""
        self.is_open = False

    def data_received(self, data: bytes) -> None:
        """Read a request; nobody asks for a second stream within one."""
        self._got += data
        head, blank, body = self._got.partition(b"\r\n\r\n")
        if not blank:
            return
        if head.startswith(b"GET /status "):
            told = b"%d" % self._count.streams
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
            self._got = b""
            return
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        length = next(int(value) for name, _, value in lines if name == b"content-length")
        if len(body) >= length:
            self._got = b""
            self._begin()

    def _begin(self) -> None:
        self._count.streams += 1
        self._left = CHUNKS
        self._due = self._loop.time()
        self._transport.write(_HEAD)
        if self._pace_s:
            self._next()
            return
        self._transport.write(b"".join(self._chunk() for _ in range(CHUNKS)) + _chunked(_END) + b"0\r\n\r\n")

    def _next(self) -> None:
        if not self.is_open:
            return
        if not self._left:
            self._transport.write(_chunked(_END) + b"0\r\n\r\n")
            return
        self._transport.write(self._chunk())
        self._due += self._pace_s  # to a fixed schedule, so that a late write does not stretch the stream
        self._loop.call_at(self._due, self._next)

    def _chunk(self) -> bytes:
        self._left -= 1
        return _chunked(_EVENT % (time.monotonic_ns(), b"null" if self._left else b'"stop"'))


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(ports: list[int]) -> None:
    """Listen until killed."""
    loop = asyncio.get_running_loop()
    count = Count()
    for port, pace_s in zip(ports, (PACE_S, 0.0), strict=True):
        await loop.create_server(partial(Streams, loop, count, pace_s), "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve([int(word) for word in sys.argv[1:]]))
