"""One connection to a Redis or Valkey server, whose commands of one turn of the loop leave in one write.

An answer is waited for up to the bound that it was made with, and asked for once. Of a server behind `rediss://` the
certificate and the host's name are checked. What is asked is for the caller to know.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

CONNECTS_WITHIN_S = 2.0
MAX_WAITING = 10_000
"""Commands of one connection without an answer; more are refused."""
_DEFAULT_PORT = 6379
_SCHEMES = ("redis", "rediss")
_PATIENT_S = 1.0
"""How long an answer may take while a connection is being made."""


class RedisError(Exception):
    """A command has failed; `kind` is one word: `timeout`, `connection`, `busy`, or the first word of its refusal."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


Word = bytes | str | int
Answered = Callable[[Any], None]
"""Told once what came: a reply, or a RedisError. A timeout is told first, and what comes later after it."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a server is, and as whom it is used."""

    host: str
    port: int
    username: str | None
    password: str | None
    database: int
    tls: ssl.SSLContext | None


def place(url: str, ca_file: Path | None = None) -> RedisAddress:
    """Read `redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`. Raise ValueError, without its secrets."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS")
    try:
        port = parts.port or _DEFAULT_PORT
        database = int(parts.path.strip("/") or 0)
    except ValueError:
        raise ValueError("its port and its database must be numbers") from None
    return RedisAddress(
        parts.hostname,
        port,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        database,
        ssl.create_default_context(cafile=ca_file) if parts.scheme == "rediss" else None,
    )


class _Waiting:
    __slots__ = ("answered", "bound_s", "sent_at_s")

    def __init__(self, answered: Answered, sent_at_s: float, bound_s: float) -> None:
        self.answered = answered
        self.sent_at_s = sent_at_s
        self.bound_s = bound_s


class RedisConnection(asyncio.Protocol):
    """One connection. `answers_within_s` bounds each answer once it is made; see `connect`."""

    def __init__(self, answers_within_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._bound_s = answers_within_s
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[_Waiting] = deque()
        self._late: deque[_Waiting] = deque()
        """Those whose time is over and whose answers, in the order of the questions, are still to come."""
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._is_full = False
        self.lost = asyncio.Event()
        """Set once it can be used no more."""

    def send(self, *words: Word, answered: Answered, within_s: float | None = None) -> None:
        """Ask, and have `answered` told of what comes; at once where nothing more can be sent."""
        if self.lost.is_set():
            answered(RedisError("connection", "the connection is gone"))
            return
        if self._is_full or len(self._waiting) + len(self._late) >= MAX_WAITING:
            answered(RedisError("busy", "too many commands wait for an answer"))
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(words))  # type: ignore[arg-type]
        bound_s = self._bound_s if within_s is None else within_s
        self._waiting.append(_Waiting(answered, time.monotonic(), bound_s))
        if self._timer is None:
            self._timer = self._loop.call_later(bound_s, self._look)

    async def ask(self, *words: Word) -> Any:
        """Ask and wait, as long as making a connection may take. Raise RedisError."""
        reply: asyncio.Future[Any] = self._loop.create_future()

        def answered(came: Any) -> None:
            if not reply.done():
                reply.set_result(came)

        self.send(*words, answered=answered, within_s=_PATIENT_S)
        came = await reply
        if isinstance(came, RedisError):
            raise came
        return came

    def drop(self, error: RedisError | None = None) -> None:
        """End it; who waits is told."""
        if self._transport is not None:
            self._transport.abort()
        self._end(error or RedisError("connection", "the connection was given up"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each reply to the one that asked first."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOTHING:
                asked = self._late.popleft() if self._late else self._waiting.popleft()
                asked.answered(_refusal(reply) if isinstance(reply, hiredis.ReplyError) else reply)
        except (hiredis.ProtocolError, IndexError) as error:  # IndexError: an answer that nobody asked for
            self.drop(RedisError("connection", f"not a Redis server's answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self._end(RedisError("connection", str(exc) if exc else "the server closed the connection"))

    def pause_writing(self) -> None:
        """Refuse what is asked from here on."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Take commands again."""
        self._is_full = False

    def _flush(self) -> None:
        if self._transport is not None and not self.lost.is_set():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _look(self) -> None:
        """Tell those whose time is over, and look again when the next one's is."""
        self._timer = None
        now_s = time.monotonic()
        while self._waiting and self._waiting[0].sent_at_s + self._waiting[0].bound_s <= now_s:
            late = self._waiting.popleft()
            self._late.append(late)
            late.answered(RedisError("timeout", f"no answer within {late.bound_s:g} s"))
        if self._waiting:
            first = self._waiting[0]
            self._timer = self._loop.call_later(first.sent_at_s + first.bound_s - now_s, self._look)

    def _end(self, error: RedisError) -> None:
        self.lost.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._late.clear()  # told already
        while self._waiting:
            self._waiting.popleft().answered(error)


async def connect(where: RedisAddress, answers_within_s: float) -> RedisConnection:
    """Return a connection to a server that may be written to. Raise RedisError."""
    connection: RedisConnection | None = None
    try:
        async with asyncio.timeout(CONNECTS_WITHIN_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: RedisConnection(answers_within_s), where.host, where.port, ssl=where.tls
            )
            await _introduce(connection, where)
            return connection
    except RedisError as error:
        failed = error
    except TimeoutError:
        failed = RedisError("timeout", f"no connection within {CONNECTS_WITHIN_S:g} s")
    except OSError as error:  # a certificate that does not hold is one as well
        failed = RedisError("connection", str(error))
    if connection is not None:
        connection.drop()
    raise failed


async def _introduce(connection: RedisConnection, where: RedisAddress) -> None:
    if where.password is not None:
        user = () if where.username is None else (where.username,)
        await connection.ask("AUTH", *user, where.password)
    if where.database:
        await connection.ask("SELECT", where.database)
    role = await connection.ask("ROLE")
    if role[0] != b"master":
        raise RedisError("readonly", "the server is a replica: it cannot be written to")


def _refusal(error: Exception) -> RedisError:
    text = str(error)
    return RedisError(text.partition(" ")[0].lower(), text)


_NOTHING = object()
