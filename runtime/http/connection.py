"""One connection of a client: what it sends is read, and the handler of each request's route answers it, in turn.

Never lets two requests of one connection run at once, reads ahead of the one that runs by no more than one read of the
socket, and is never without a bound on what it waits for: `due` and `write_by` are numbers that the server's clock
walks, so that a plain request starts no timer.
"""

import asyncio
import logging
import math
import socket
from collections import deque
from enum import Enum
from typing import Protocol

from runtime.http.answers import CONTINUE
from runtime.http.bounds import BodyFault, Bounds
from runtime.http.exchange import Exchange, PathRoute
from runtime.http.intake import SocketIntake
from runtime.http.line import Port
from runtime.http.reader import Reader, refusal

_SLICE_BYTES = 16 * 1024
"""As much is parsed at once: so much is read ahead of a request, and no more, where a client sends many."""
_PROBE_AFTER_S = 1.0
"""How long a client that sends no more is waited for before it is asked whether it is there."""
log = logging.getLogger(__name__)


class Waiting(Enum):
    """What a connection waits for, so that it knows what is over at `due`."""

    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    """The handler has all there is to read; what it waits for is its own matter."""
    NEXT = "next"
    """Another request, or the end."""
    LINGER = "linger"
    """The client's end: nothing is read any more."""


class Host(Port, Protocol):
    """What a connection needs of its server."""

    bounds: Bounds
    loop: asyncio.AbstractEventLoop

    def opened(self, connection: "Connection") -> bool:
        """Take a connection in; return False where there are too many."""

    def forget(self, connection: "Connection") -> None:
        """Let go of a connection that has ended and whose request is over."""

    def route(self, method: bytes, target: bytes) -> PathRoute:
        """Return what answers a request."""


class Connection(asyncio.Protocol):
    """The protocol of one connection."""

    __slots__ = (
        "_ahead", "_bounds", "_current", "_intake", "_is_deaf", "_probe_at", "_reader", "_refusal",
        "_unread", "_waiting", "due", "is_lost", "loop", "port", "running", "transport", "undrained", "write_by",
    )  # fmt: skip

    def __init__(self, port: Host) -> None:
        self.port = port
        self._bounds = port.bounds
        self.loop = port.loop
        self.transport: asyncio.Transport
        self._reader = Reader(self)
        self._current: Exchange | None = None
        """What is being answered."""
        self.running: asyncio.Task[None] | None = None
        """The task that does it."""
        self._ahead: deque[Exchange] = deque()
        """Whose heads are there, behind the current one."""
        self._unread = b""
        """What has come and is not read yet: it is not its turn."""
        self._waiting = Waiting.HEAD
        self.due = self.write_by = math.inf
        """On the loop's clock."""
        self.undrained: asyncio.Future[None] | None = None
        self._refusal = 0
        """The status of what cannot be read, and ends the connection when its turn has come."""
        self._is_deaf = False
        """Whether what still comes is thrown away."""
        self._probe_at: float | None = None
        """When to find out whether a client is there that has said that it sends no more."""
        self.is_lost = False

    # --- what the transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first head."""
        self.transport = transport
        self._intake = SocketIntake(transport, self.port.turns)
        if self.port.opened(self):
            self.due = self.loop.time() + self._bounds.head_within_s
        else:
            self._refuse(503)

    def data_received(self, data: bytes) -> None:
        """Read what has come, as far as it is the client's turn."""
        if len(data) > _SLICE_BYTES:
            self._intake.next_in_turn()
        if self._is_deaf:
            return
        if self._current is not None and self._is_ahead:
            self._keep_for_later(data)
        elif len(data) <= _SLICE_BYTES:
            self._read(data)
        else:
            self._read_in_slices(memoryview(data))

    def eof_received(self) -> bool:
        """Take note that the client sends no more, and keep the connection while it is owed an answer."""
        incoming, self._reader.incoming = self._reader.incoming, None
        if incoming is not None and incoming.headed:
            incoming.fail(BodyFault.BROKEN_OFF)
        current = self._current
        if current is None:
            return False
        # a client that has gone looks like one that waits for its answer, until something is written to it
        self._probe_at = self.loop.time() + (0 if current.is_chunked else _PROBE_AFTER_S)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that the client has gone; let go of everything else."""
        self.is_lost = self._is_deaf = True
        self._reader.close()
        self.due = math.inf
        self._unread = b""
        self._intake.close()
        self.resume_writing()
        for exchange in self._ahead:
            exchange.close()
        self._ahead.clear()
        if self._current is not None:
            self._current.client_gone()
        else:
            self.port.forget(self)

    def pause_writing(self) -> None:
        """Bound how long the client may take nothing."""
        if self.undrained is None and not self.is_lost:
            self.undrained = self.loop.create_future()
            self.write_by = self.loop.time() + self._bounds.write_within_s  # of all: it may be taken byte by byte

    def resume_writing(self) -> None:
        """Let whoever waits write on."""
        self.write_by = math.inf
        if self.undrained is not None:
            self.undrained.set_result(None)
            self.undrained = None

    # --- what the server's clock tells

    def tick(self, now: float) -> None:
        """End what is over at `now`, on the loop's clock."""
        if now >= self.due:
            self._is_over()
        elif now >= self.write_by:
            self.transport.abort()
        elif (self._probe_at is not None or self._intake.is_paused) and not self.is_lost:
            self._look(now)

    def stop(self) -> None:
        """End the connection, unless a request is under way: then after it, or when the rest of it does not come."""
        if self._current is None and (self._reader.incoming is None or self._waiting is Waiting.LINGER):
            self.transport.close()
        elif self._waiting in (Waiting.HEAD, Waiting.BODY):
            self.due = min(self.due, self.loop.time() + self._bounds.stopping_s)

    def give_way(self) -> bool:
        """End the connection at once where no request is under way; return whether it did."""
        is_idle = self._current is None and self._waiting in (Waiting.HEAD, Waiting.NEXT) and not self.is_lost
        if is_idle:
            self.transport.abort()
        return is_idle

    # --- reading

    def headed(self, exchange: Exchange) -> None:
        """Hand a request to its handler, or have it wait for its turn."""
        exchange.route = self.port.route(exchange.method, exchange.target)
        if self._current is None:
            self._begin(exchange)
        else:
            self._ahead.append(exchange)

    def completed(self, exchange: Exchange) -> None:
        """Take note that all of a request is there."""
        self.due = math.inf
        self._waiting = Waiting.ANSWER
        exchange.completed()

    def pause_reading(self) -> None:
        """Read no further until `resume_reading`."""
        if self._probe_at is None and not self.is_lost:
            self._intake.pause()

    def resume_reading(self) -> None:
        """Read on."""
        if not self._unread and not self.is_lost:
            self._intake.resume()

    @property
    def _is_ahead(self) -> bool:
        """Whether what comes now belongs to a later request than the one that is being answered."""
        return self._current is not None and self._reader.incoming is not self._current

    def _read(self, data: bytes | memoryview) -> None:
        status = self._reader.feed(data)
        incoming = self._reader.incoming
        if status or (incoming is not None and self._reader.unframed > self._bounds.max_head_bytes):
            self._give_up(status or 431)
        elif incoming is None or not incoming.headed:
            if self._current is None and self._waiting is not Waiting.HEAD:  # an empty line begins a request too
                self._wait_for(Waiting.HEAD, self._bounds.head_within_s)
        elif incoming is self._current and self._waiting is not Waiting.BODY:
            self._wait_for_body(incoming)

    def _read_in_slices(self, data: memoryview) -> None:
        for start in range(0, len(data), _SLICE_BYTES):
            if self._is_ahead:
                self._keep_for_later(bytes(data[start:]))
                return
            self._read(data[start : start + _SLICE_BYTES])
            if self._is_deaf:
                return

    def _keep_for_later(self, data: bytes) -> None:
        self._unread += data
        self.pause_reading()

    def _give_up(self, status: int) -> None:
        """Read nothing more of this connection; what was asked before is answered first."""
        self._is_deaf = True
        self.due = math.inf
        self._refusal = status
        incoming, self._reader.incoming = self._reader.incoming, None
        if incoming is not None and incoming.headed:
            incoming.fail(BodyFault.MALFORMED)  # its own answer ends the connection
        elif self._current is None:
            self._refuse(status)

    # --- from one request to the next

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        self.running = self.loop.create_task(self._serve(exchange))

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await exchange.route.handler(exchange)
        except Exception:  # a fault of the handler ends this request alone
            log.exception("a request failed: %s", exchange.method.decode("ascii"))
            if not exchange.status:
                exchange.keep_alive = False
                exchange.begin(500, [], length=0, whole=b"")
        finally:
            exchange.close()
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        self._current = self.running = None
        if self.is_lost:
            self.port.forget(self)
        elif not exchange.ended:
            self.transport.abort()  # the client must not take a part for the whole
        elif exchange.keep_alive:
            self._next()
        else:
            self._close(may_send=not exchange.complete)

    def _next(self) -> None:
        """Go on with what has been read ahead, or wait for more."""
        if self._ahead:
            exchange = self._ahead.popleft()
            self._begin(exchange)
            if exchange is self._reader.incoming:
                self._wait_for_body(exchange)
        elif self._refusal:
            self._refuse(self._refusal)
        elif self._probe_at is not None or self.port.is_stopping:
            self._close(may_send=False)
        else:
            if self._reader.incoming is None:
                self._wait_for(Waiting.NEXT, self._bounds.idle_s)
            else:
                self._wait_for(Waiting.HEAD, self._bounds.head_within_s)
            if self._intake.is_paused:
                unread, self._unread = self._unread, b""
                self.resume_reading()
                if unread:
                    self.data_received(unread)

    def _refuse(self, status: int) -> None:
        """Answer what is no request that could be served, and end the connection."""
        self.transport.write(refusal(status))
        self._close(may_send=status != 503)

    def _close(self, *, may_send: bool) -> None:
        """End the connection; where the client may still send, only after it has had time to read its answer."""
        self._is_deaf = True
        self._unread = b""
        self.write_by = self.loop.time() + self._bounds.write_within_s
        if not may_send or self._refusal == 431 or self._probe_at is not None or self.port.is_stopping:
            self.due = math.inf
            self.transport.close()
            return
        # closed with something unread, the connection would be reset, and the answer lost with it
        self.transport.write_eof()
        self.resume_reading()
        self._wait_for(Waiting.LINGER, self._bounds.linger_s)

    # --- time

    def _wait_for(self, waiting: Waiting, within_s: float) -> None:
        self._waiting = waiting
        self.due = self.loop.time() + within_s

    def _wait_for_body(self, exchange: Exchange) -> None:
        bound_s = exchange.route.body_within_s
        self._wait_for(Waiting.BODY, self._bounds.body_within_s if bound_s is None else bound_s)

    def _is_over(self) -> None:
        self.due = math.inf
        if self._waiting is Waiting.BODY and self._current is not None:
            self._current.fail(BodyFault.TOO_LATE)
        elif self._waiting is Waiting.NEXT:
            self._close(may_send=False)
        else:
            self.transport.abort()

    def _look(self, now: float) -> None:
        """Find out whether a client is there whose end the transport does not watch for."""
        current = self._current
        if self._probe_at is not None and now >= self._probe_at and current is not None:
            self._probe_at = math.inf
            if current.is_chunked:
                self.transport.write(b"0")  # a leading zero of the next chunk's size (RFC 9112 7.1)
            elif not current.status and not current.is_1_0:
                self.transport.write(CONTINUE)  # every client must pass over it (RFC 9110 15.2)
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()  # what was written came back: it has gone
