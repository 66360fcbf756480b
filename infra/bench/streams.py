"""Follows paced streams and says how long their chunks were under way; a program of its own, with a core of its own."""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial

import uvloop

from infra.bench import servers

_STAMP = re.compile(rb'"at ([0-9]+) "')
_LAST = b"\r\n0\r\n\r\n"
_OVER_S = 20.0


@dataclass(frozen=True)
class Followed:
    """What was seen. A chunk that came in one read with the one before it was held back somewhere."""

    streams: int
    chunks: int
    together: int
    broken: int
    first_us: float
    """From the request to the first chunk, the median."""
    p50_us: float
    p99_us: float
    """How long chunks were under way."""


def follow(port: int, key: str, slug: str, connections: int, seconds: int) -> Followed:
    """Follow streams for a while. Raise BenchError where none came."""
    words = [sys.executable, "-m", "infra.bench.streams", str(port), slug, str(connections), str(seconds)]
    result = subprocess.run(
        servers.pinned(servers.LOAD_CORE, words),
        env=os.environ | {"BENCH_AUTHORIZATION": f"Api-Key {key}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + _OVER_S + 30,
    )
    if result.returncode:
        raise servers.BenchError(f"streams could not be followed:\n{result.stdout}{result.stderr}")
    return Followed(**json.loads(result.stdout))


@dataclass
class Seen:
    """What all connections have seen."""

    streams: int = 0
    chunks: int = 0
    together: int = 0
    broken: int = 0
    first_us: list[float] = field(default_factory=list)
    delays_us: list[float] = field(default_factory=list)


class Reader(asyncio.Protocol):
    """One connection: a stream after the other until the time is over."""

    def __init__(self, request: bytes, seen: Seen, until_s: float, over: asyncio.Future[None]) -> None:
        self._request, self._seen, self._until_s, self._over = request, seen, until_s, over
        self._tail = b""
        self._asked_ns = 0
        self._is_first = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask for the first stream."""
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Note when each chunk has come."""
        now_ns = time.monotonic_ns()
        stamps = [int(stamp) for stamp in _STAMP.findall(data)]
        seen = self._seen
        if stamps and self._is_first:
            self._is_first = False
            seen.first_us.append((now_ns - self._asked_ns) / 1000)
        seen.chunks += len(stamps)
        seen.together += max(0, len(stamps) - 1)
        seen.delays_us.extend((now_ns - stamp) / 1000 for stamp in stamps)
        self._tail = (self._tail + data)[-len(_LAST) :]
        if self._tail == _LAST:
            seen.streams += 1
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Be over; a stream that was not at its end is a broken one."""
        if not self._over.done():
            self._seen.broken += 1
            self._over.set_result(None)

    def _ask(self) -> None:
        if time.monotonic() >= self._until_s:
            self._over.set_result(None)
            self._transport.close()
            return
        self._is_first, self._tail = True, b""
        self._asked_ns = time.monotonic_ns()
        self._transport.write(self._request)


async def run(port: int, slug: str, connections: int, seconds: float) -> Seen:
    """Follow streams on as many connections at once."""
    loop = asyncio.get_running_loop()
    body = json.dumps(
        {"model": slug, "stream": True, "messages": [{"role": "user", "content": "What does a chunk cost?"}]}
    ).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"authorization: {os.environ['BENCH_AUTHORIZATION']}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
    seen, until_s = Seen(), time.monotonic() + seconds
    overs = [loop.create_future() for _ in range(connections)]
    for number, over in enumerate(overs):
        await loop.create_connection(partial(Reader, request, seen, until_s, over), "127.0.0.1", port)
        await asyncio.sleep(0.4 / connections if number < connections - 1 else 0)  # spread over a stream's length
    async with asyncio.timeout(seconds + _OVER_S):
        await asyncio.gather(*overs)
    return seen


def main(words: list[str]) -> None:
    """Follow, and print what was seen as one line of JSON."""
    port, slug, connections, seconds = int(words[0]), words[1], int(words[2]), float(words[3])
    seen = uvloop.run(run(port, slug, connections, seconds))
    if not seen.streams:
        sys.exit("no stream came to its end")
    delays = sorted(seen.delays_us)
    print(
        json.dumps(
            {
                "streams": seen.streams,
                "chunks": seen.chunks,
                "together": seen.together,
                "broken": seen.broken,
                "first_us": statistics.median(seen.first_us),
                "p50_us": statistics.median(delays),
                "p99_us": delays[len(delays) * 99 // 100],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
