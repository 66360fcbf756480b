"""One HTTP/1.1 connection to an upstream: sends a request and hands its answer over as it comes (RFC 9112).

Costs a request neither a timer nor a task, and one future for each wait. Whatever an upstream sends is bounded: what is
no body by the limits of `bounds`, the body by not being read on while `MAX_BUFFERED_BYTES` of it wait to be taken.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

import httptools

from proxy.core.calls import BrokenOffError
from proxy.upstream import bounds
from proxy.upstream.bounds import AnswerError
from proxy.upstream.known_heads import WANTED, KnownHeads
from proxy.upstream.slices import Slices
from runtime.deadlines import Deadlines
from runtime.memory_files import Content
from runtime.turns import Turns

KEEP_S = 4.0
"""How long a connection is kept for the next request: below the 5 s after which common servers close."""
REST_WITHIN_S = 1.0
"""How long, and `MAX_BUFFERED_BYTES` is how far, an answer is read on of which only the end is missing."""

PIECE_BYTES = 16 * 1024
"""What one read hands over at most: reading its events takes about a millisecond, then others have their turn."""
_BUSY_BYTES = 1024
"""A piece from this size on is no word of a model: whose stream has such pieces goes on in its turn only."""
_JOINED_BYTES = 64 * 1024
"""A body up to this is copied behind its head; a larger one is sent by slices."""

_PARSER_ERRORS = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class Owner(Protocol):
    """Who made a connection."""

    known: KnownHeads

    def keep(self, connection: "UpstreamConnection") -> None:
        """Take back a connection that may be used again."""

    def forget(self, connection: "UpstreamConnection") -> None:
        """Note that a connection has ended."""


class UpstreamConnection(asyncio.BufferedProtocol):
    """A connection, used for one request at a time.

    Whoever asks calls `send`, waits for `change` until there is a `status` or a `problem`, calls `read` until None, and
    `release` in any case.
    """

    __slots__ = (
        "_asked", "_bodiless", "_buffer", "_busy", "_chunks", "_deadlines", "_draining", "_header_lines_left",
        "_holder", "_interim_left", "_left", "_loop", "_owner", "_parser", "_paused", "_reusable",
        "_silence_s", "_slices", "_transport", "_turns", "_waiter", "address", "complete", "due", "end_expected",
        "headers", "held", "is_made", "problem", "status", "too_slow",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, address: str, deadlines: Deadlines, buffer: memoryview, silence_s: float, *, turns: Turns
    ) -> None:
        """`buffer` is `read_buffer`'s; `silence_s` bounds each wait for bytes, the first ones included."""
        self.address = address
        self.is_made = False  # whether it has come to be a connection; `change` is done then once it is no more
        self.due = math.inf
        self.status = 0
        """Of the answer; 0 until its head is there."""
        self.headers: dict[bytes, bytes] = {}
        """Those of the answer's headers that anybody asks for, by their names in lower case; the first of each."""
        self.complete = False
        """Whether the whole answer has come."""
        self.problem: str | None = None
        """Why nothing more will come."""
        self.too_slow = False
        """Whether the problem is a wait that was too long."""
        self.end_expected = False
        """Whether only the end of the answer is missing, so that `release` may wait for it."""
        self._owner = owner
        self._deadlines = deadlines
        self._turns = turns
        self._holder = ""
        self._buffer = buffer
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport  # from when it is made
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self.held = 0  # bytes of the body that are there to be taken
        self._slices: Slices | None = None
        self._paused = False
        self._asked = False
        self._reusable = False

    # --- for whoever asks ---------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent."""
        return self.is_made and not self._transport.is_closing()

    def send(self, head: bytes, body: Content, on_sent: Callable[[], None] | None = None, *, holder: str = "") -> None:
        """Send a request. Only for a connection that is open and not in use. `on_sent` is called once all has gone.

        `holder` has a share of the turns, with all else that is its.
        """
        self._holder, self._bodiless = holder, head.startswith(b"HEAD ")
        self.due = math.inf
        self.status = 0
        self.headers = {}
        self.complete = self.end_expected = self._busy = self._draining = False
        self._left = bounds.MAX_HEAD_BYTES
        self._header_lines_left = bounds.MAX_HEADER_LINES
        self._interim_left = bounds.MAX_INTERIM_ANSWERS
        self._asked = True
        if on_sent is None and isinstance(body, bytes) and len(body) <= _JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._slices = Slices(self._transport, body, self._turns, holder, on_sent)
            self._slices.go_on()

    def change(self) -> asyncio.Future[None]:
        """Return what is done as soon as anything has come, or nothing will any more."""
        self._waiter = waiter = self._loop.create_future()
        self.due = self._deadlines.now + self._silence_s
        return waiter

    async def read(self) -> bytes | None:
        """Return what has come of the body, as soon as there is anything; None at its end.

        At most `PIECE_BYTES` at once. After a piece of `_BUSY_BYTES` it takes its turn among all that had such, so
        that upstreams that always have more keep nobody from his. Raise BrokenOffError.
        """
        if self._busy and (self._chunks or not self.complete):
            self._busy = False
            await self.turn()
        while not self._chunks:
            if self.complete:
                return None
            if self.problem is not None:
                raise BrokenOffError(self.problem)
            await self.change()
        return self.take()

    def take(self) -> bytes:
        """Return what is there of the body, up to `PIECE_BYTES`."""
        chunks = self._chunks
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._busy = len(chunk) >= _BUSY_BYTES
        if len(chunk) > PIECE_BYTES:
            self._chunks = [chunk[PIECE_BYTES:]]
            self.held -= PIECE_BYTES
            return chunk[:PIECE_BYTES]
        self._drop()
        return chunk

    async def turn(self) -> None:
        """Return when what is ready without a wait may go on."""
        await self._turns.take(self._holder)

    def release(self) -> None:
        """Be done with the answer: the connection is kept if the answer is whole, or nearly and `end_expected`."""
        if self.complete:
            self._give_back()
        elif self.end_expected and self._reusable and self.problem is None and self.is_open:
            self._draining = True
            self.due = self._deadlines.now + REST_WITHIN_S
            self._drop()
        else:
            self.end("the answer was not wanted any more")

    def end(self, problem: str) -> None:
        """End the connection at once, whatever is under way; what was not sent yet is dropped."""
        if self.problem is None:
            self.problem = problem
        if self.is_made:
            self._transport.abort()
        self._wake()

    def overdue(self) -> None:
        """End: a wait, the rest of an answer, or the time to be kept has been too long."""
        self.due = math.inf
        self.too_slow = self._waiter is not None
        self.end(f"nothing came for {self._silence_s:g} s" if self.too_slow else "its time was over")

    # --- for the event loop -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Be connected."""
        self._transport = transport
        self.is_made = True
        self._deadlines.watch(self)
        if self.problem is not None:  # nobody wants it any more
            transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read what has come."""
        data = self._buffer[:nbytes]
        if not self._asked:  # an answer before its question would be the next question's
            self.end("it sent what nobody had asked for")
            return
        is_first = not self.status and self._left == bounds.MAX_HEAD_BYTES and not self._bodiless
        if is_first and self._take_whole(self._owner.known.body(data)):
            return
        try:
            if len(data) > self._left and not self.status:
                data = self._feed_head(data)
            self._left -= len(data)
            self._parser.feed_data(data)
        except _PARSER_ERRORS as error:
            self.end(f"its answer cannot be read: {error.__context__ or error}")
        else:
            if self._left < 0 and not self.complete:
                self.end(f"more than {bounds.MAX_FRAMING_BYTES} bytes came that are no body")
            elif self.held > bounds.MAX_BUFFERED_BYTES:
                self._pause()
            elif self._draining and self.complete:
                self._give_back()
            elif is_first and self.complete and self._reusable and self.status == 200:
                self._owner.known.missed(data, self.headers)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Be closed. An answer that names no length is whole now (RFC 9112 6.3)."""
        self._deadlines.forget(self)
        self._owner.forget(self)
        if self.problem is None:
            if exc is None and self.status and not self.headers.keys() & {b"content-length", b"transfer-encoding"}:
                self.complete = True
            self.problem = str(exc) if exc else "the connection was closed"
        self._reusable = False
        if self._slices is not None:
            self._slices.close()
        self._wake()

    def resume_writing(self) -> None:
        """Send on, or tell that all of a request has been handed to the system."""
        if self._slices is not None:
            self._slices.go_on()

    # --- for the parser -----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse an answer after the answer."""
        if self.complete:
            raise AnswerError("something came after its end")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, or count a trailer."""
        self._header_lines_left = left = self._header_lines_left - 1
        if left < 0:
            raise AnswerError(f"it has more than {bounds.MAX_HEADER_LINES} header lines")
        if (name := name.lower()) in WANTED and not self.status:
            self.headers.setdefault(name, value)

    def on_headers_complete(self) -> None:
        """Note that the head is there, unless it is an interim one."""
        status = self._parser.get_status_code()
        if status < 200:
            self._interim_left -= 1
            if self._interim_left < 0 or status in (0, 101):
                raise AnswerError(f"a {status} too many")
            self.headers = {}
            return
        if self.headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise AnswerError("its transfer coding is not known")
        self.complete = self._bodiless  # the parser would wait for what the head tells of (RFC 9110 9.3.2)
        self._reusable = self._parser.should_keep_alive() and not self._bodiless
        self._left = bounds.MAX_FRAMING_BYTES
        self.status = status

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._left = bounds.MAX_FRAMING_BYTES
        self._chunks.append(body)
        self.held += len(body)

    def on_message_complete(self) -> None:
        """Note that the answer is whole, unless it is an interim one."""
        self.complete = self.status != 0

    # ------------------------------------------------------------------------------------------------------------------

    def _take_whole(self, body: bytes | None) -> bool:
        """Take an answer whose head is known, if it is one: it has status 200, and keeps the connection."""
        if body is None:
            return False
        self.status, self.headers = 200, self._owner.known.headers
        self.complete = self._reusable = True
        if body:
            self._chunks.append(body)
            self.held = len(body)
        self._wake()
        return True

    def _feed_head(self, data: memoryview) -> memoryview:
        """Feed as much as a head may still have; return the rest."""
        room = self._left
        self._parser.feed_data(data[:room])
        if not self.status:
            self._left = -1
            raise httptools.HttpParserError(f"its head is longer than {bounds.MAX_HEAD_BYTES} bytes")
        return data[room:]

    def _drop(self) -> None:
        """Hold nothing of the body any more, and read on."""
        self._chunks = []
        self.held = 0
        if self._paused:
            self._paused = False
            if self.is_open:
                self._transport.resume_reading()

    def _pause(self) -> None:
        if self._draining:
            self.end("too much came after its end")
        elif not self._paused and self.is_open:
            self._paused = True
            self._transport.pause_reading()

    def _give_back(self) -> None:
        # a server that answered without reading the whole request will hardly read a next one
        unsent = self._transport.get_write_buffer_size() or (self._slices is not None and self._slices.is_left)
        if not self._reusable or not self.is_open or unsent:
            self.end("it cannot be used again")
            return
        self._asked = False
        self._drop()
        self.due = self._deadlines.now + KEEP_S
        self._owner.keep(self)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            self.due = math.inf
            if not waiter.done():  # else whoever waited was cancelled
                waiter.set_result(None)
