"""The attackers, each a program: `python -m infra.attack.attackers NAME PORT SECONDS`; a key in ATTACK_KEY."""

import asyncio
import os
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import uvloop

from infra.attack.upstream import FLOOD, LARGE, SILENT, SLOW

PREFIX = "attacker"
_BODY_BYTES = 16 * 1024 * 1024 - 1024
_PATH = "/v1/chat/completions"
_HOST = "127.0.0.1"
_BEATEN_S = 0.05
"""How long an attacker waits after a refusal; without it the row would measure how fast refusals are written."""


class Attacker:
    """One attacker's means: where it attacks, with which key, and what it was answered."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.key = key
        self.statuses: Counter[str] = Counter()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection(_HOST, self.port, limit=2**20)

    def head(self, *lines: str) -> bytes:
        """Return the head of a request."""
        named = (f"POST {_PATH} HTTP/1.1", "host: gateway", f"authorization: Api-Key {self.key}", *lines)
        return "\r\n".join((*named, "", "")).encode()

    async def ask(self, body: bytes, *, read: bool = True) -> None:
        """Send one request, and read its whole answer or only its head."""
        reader, writer = await self.connect()
        try:
            writer.write(self.head(f"content-length: {len(body)}", "connection: close") + body)
            line = await reader.readline()
            status = line.split()[1].decode() if line else "none"
            self.statuses[status] += 1
            while read and await reader.read(2**20):
                pass
            if status != "200":
                await asyncio.sleep(_BEATEN_S)
        finally:
            writer.transport.abort()


def _asked(model: str, rest: bytes = b"") -> bytes:
    return b'{"model":"%s/%s"%s,"messages":[]}' % (PREFIX.encode(), model.encode(), rest)


async def flood(attacker: Attacker) -> None:
    """Ask for a stream that is always ready, and leave."""
    await attacker.ask(_asked(FLOOD, b',"stream":true'), read=False)


async def trailers(attacker: Attacker) -> None:
    """Send trailers without end behind a chunked body."""
    _, writer = await attacker.connect()
    writer.write(attacker.head("transfer-encoding: chunked").replace(b"Api-Key", b"Api-Kex") + b"0\r\n")
    try:
        for number in range(400):
            writer.write(b"x-%d: %b\r\n" % (number, b"y" * 50_000))
            await writer.drain()
    finally:
        writer.transport.abort()


async def resets(attacker: Attacker) -> None:
    """Send most of a large head, and reset the connection."""
    _, writer = await attacker.connect()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"y" * 56_000)
    await writer.drain()
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await asyncio.sleep(0.002)


async def held(attacker: Attacker) -> None:
    """Hold a connection that has sent an empty line, or one byte of a body after its refusal."""
    reader, writer = await attacker.connect()
    try:
        writer.write(b"\r\n")
        async with asyncio.timeout(40):
            await reader.read()
    finally:
        writer.transport.abort()


async def bodies(attacker: Attacker) -> None:
    """Send a body of 16 MiB to an upstream that says nothing."""
    await attacker.ask(_asked(SILENT, b',"x":"' + b"y" * _BODY_BYTES + b'"'))


async def answers(attacker: Attacker) -> None:
    """Ask for an answer of 15 MiB."""
    await attacker.ask(_asked(LARGE))


async def nested(attacker: Attacker) -> None:
    """Send a body of 16 MiB of nested arrays."""
    unit = b"[" * 50 + b"]" * 50 + b","
    await attacker.ask(_asked(SILENT, b',"x":[' + unit * (_BODY_BYTES // len(unit)) + b"0]"))


async def slowly(attacker: Attacker) -> None:
    """Send a body a byte a second."""
    reader, writer = await attacker.connect()
    try:
        writer.write(attacker.head("content-length: 1000"))
        while not reader.at_eof():
            writer.write(b" ")
            await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await reader.read(2**16)
    finally:
        writer.transport.abort()


async def slow_answers(attacker: Attacker) -> None:
    """Ask for an answer that comes a byte a second."""
    await attacker.ask(_asked(SLOW, b',"stream":true'))


async def in_flight(attacker: Attacker) -> None:
    """Ask what is never answered."""
    await attacker.ask(_asked(SILENT))


ATTACKS: dict[str, tuple[Callable[[Attacker], Awaitable[None]], int]] = {
    "flood": (flood, 4),
    "trailers": (trailers, 4),
    "resets": (resets, 8),
    "held": (held, 500),
    "bodies": (bodies, 32),
    "answers": (answers, 64),
    "nested": (nested, 6),
    "slowly": (slowly, 200),
    "slow_answers": (slow_answers, 200),
    "in_flight": (in_flight, 3000),
}
"""What each attacker does, and how often at once."""


async def _again(attack: Callable[[Attacker], Awaitable[None]], attacker: Attacker) -> None:
    while True:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            await attack(attacker)
        await asyncio.sleep(0)


async def _main(name: str, port: int, seconds: float) -> None:
    attacker = Attacker(port, os.environ.get("ATTACK_KEY", "none"))
    attack, at_once = ATTACKS[name]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks = [asyncio.create_task(_again(attack, attacker)) for _ in range(at_once)]
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(" ".join(f"{status}:{count}" for status, count in sorted(attacker.statuses.items())))


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
