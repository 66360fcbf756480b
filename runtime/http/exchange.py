"""One request and its answer, as the handler of its route sees them.

A plain request costs one object and no timer; what it has to wait for is a future that the connection resolves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec

from runtime.http.answers import CONTINUE, STATUS_LINES, error_body
from runtime.http.bounds import BodyFault
from runtime.http.line import Line
from runtime.memory_files import HEAP_BYTES, Content, MemoryFile, passed, spilled
from runtime.shares import Excess, Shares

Headers = list[tuple[bytes, bytes]]
"""Names in lower case."""

NO_ANSWER = 0
"""The status of an exchange whose answer has not begun."""
READ_AHEAD_BYTES = 64 * 1024
"""As much of a body is read before its handler wants it."""
PIECE_BYTES = 256 * 1024
"""As much of a large answer is written before the client has taken what was written before."""

_CLOSE = b"connection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class PathRoute:
    """What answers one method of one path, and what its bodies may take."""

    handler: Callable[["Exchange"], Awaitable[None]]
    max_body_bytes: int = 2**63 - 1
    body_within_s: float | None = None
    """None: the port's own bound."""
    bodies: Shares | None = None
    """What all bodies may take, in bytes. None: the handler takes the body piece by piece, so that little is held."""


Routes = Mapping[bytes, Mapping[bytes, PathRoute]]
"""By path, then by method. A path that ends in a slash stands for all whose first segment it is."""


async def _nobody(_: "Exchange") -> None:
    """Answer nothing."""


_UNROUTED = PathRoute(_nobody)


class Exchange(msgspec.Struct, eq=False):
    """One request and its answer. A struct is made in C: its 30 members cost a request what one call does."""

    _line: Line
    method: bytes = b""
    target: bytes = b""
    """As it was sent: path and query, an absolute URL, or ``*``."""
    headers: Headers = []
    authorization: bytes | None = None
    length: int | None = None
    """Of the body, where it was told."""
    codings: bytes | None = None
    expect: bytes | None = None
    upgrade: bool = False
    is_1_0: bool = False
    host: bytes = b""
    hosts: int = 0
    headed: bool = False
    """Whether the head is whole."""
    complete: bool = False
    """Whether the body is whole too."""
    keep_alive: bool = True
    route: PathRoute = _UNROUTED
    wanted: bool = False
    size: int = 0
    fault: BodyFault | None = None
    status: int = NO_ANSWER
    ended: bool = False
    """Whether the whole answer has been written."""
    gone: bool = False
    """Whether the client has gone away."""
    _pieces: list[bytes] = []
    _file: MemoryFile | None = None  # in place of pieces, where they are many
    _held: int = 0
    _holder: str | None = None  # whose share of bodies it takes; until it is known no more is read than ahead
    _by_piece: bool = False
    _chunked: bool = False
    _bodiless: bool = False
    _waiter: asyncio.Future[None] | None = None
    _on_gone: Callable[[], None] | None = None

    # --- the request, as the handler reads it

    async def body(self, holder: str = "") -> bytes | MemoryFile | BodyFault:
        """Return the whole body, whose bytes are `holder`'s until `release_body`, or why there is none. Once."""
        self._holder = holder
        if self.fault is None and self.size:
            self._hold(self.size)
        if not self.complete and self.fault is None:
            if self.length is not None and self.length > self.route.max_body_bytes:
                self.fail(BodyFault.TOO_LARGE)
            else:
                self._want()
                await self._wait()
        if self.fault is not None:
            return self.fault
        file, self._file = self._file, None
        pieces, self._pieces = self._pieces, []
        return file or (pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def release_body(self) -> None:
        """Give the body's room back before the request is over: nobody holds it any more."""
        if self._held and self.route.bodies is not None and self._holder is not None:
            self.route.bodies.give_back(self._holder, self._held)
            self._held = 0

    async def read(self) -> bytes | BodyFault:
        """Return what of the body has arrived since the last call, waiting for some; empty at its end."""
        self._by_piece = True
        if not (self._pieces or self.complete or self.fault):
            self._want()
            await self._wait()
        if self.fault is not None:
            return self.fault
        pieces, self._pieces = self._pieces, []
        self.size = 0
        self._line.resume_reading()
        return b"".join(pieces)

    async def until_gone(self) -> None:
        """Wait until the client has gone away, or its answer has ended."""
        while not self.gone and not self.ended:
            await self._wait()

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the client goes away, at once where it has gone; None: it no longer matters."""
        if self.gone and callback is not None:
            callback()
        else:
            self._on_gone = callback

    # --- the answer, as the handler writes it

    async def answer(self, status: int, headers: Headers, body: Content, lines: bytes = b"") -> None:
        """Write a whole answer; of a large one, in turn, no more at once than a client that does not read may hold."""
        if isinstance(body, bytes) and len(body) <= PIECE_BYTES:
            self.begin(status, headers, lines, length=len(body), whole=body)
            return
        self.begin(status, headers, lines, length=len(body))
        view = memoryview(body)
        for start in range(0, len(body), PIECE_BYTES):
            if start:
                await self._line.port.turns.take(self._holder or "")
            end = min(start + PIECE_BYTES, len(body))
            self.write(view[start:end], last=end == len(body))
            await self.drained()
            passed(body, start, end)

    def begin(
        self,
        status: int,
        headers: Headers,
        lines: bytes = b"",
        *,
        length: int | None = None,
        whole: bytes | None = None,
    ) -> None:
        """Write the head of an answer; `lines` are further headers, each with its end.

        `length` of its body, where it is known; `whole`: the body, to go with it.
        """
        self.status = status
        if not self.complete or self._line.port.is_stopping:  # what a refused client still sends is no request
            self.keep_alive = False
        self._bodiless = self.method == b"HEAD" or status in (204, 304)
        framing = b""
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif not self._bodiless:
            if self.is_1_0:
                self.keep_alive = False  # the end of the connection is the end of the body
            else:
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
        if whole is not None:
            self.end()
        if not self.gone:
            self._line.transport.write(
                b"%b%b%b%b%b%b"
                % (
                    STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status,
                    b"".join([b"%b: %b\r\n" % header for header in headers]),
                    lines,
                    framing,
                    b"\r\n" if self.keep_alive else _CLOSE,
                    b"" if whole is None or self._bodiless else whole,
                )
            )

    def write(self, chunk: bytes | memoryview, *, last: bool = False) -> None:
        """Write a piece of the body at once."""
        if last:
            self.end()
        if self.gone or self._bodiless:
            return
        if self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(chunk), bytes(chunk)) if chunk else b""
            chunk = framed + b"0\r\n\r\n" if last else framed
        if chunk:
            self._line.transport.write(chunk)

    async def drained(self) -> None:
        """Wait while the client does not take what was written for it."""
        while (waiting := self._line.undrained) is not None:
            await asyncio.wait((waiting,))  # others may wait for it too, so that it must outlive a cancellation

    def cut(self) -> None:
        """End the connection before the answer's end, so that its client cannot take it for whole."""
        self.keep_alive = False
        self.end()
        transport = self._line.transport
        (transport.abort if self.is_1_0 else transport.close)()  # to 1.0 the connection's end is the answer's

    def refuse(self, status: int, message: str) -> None:
        """Answer in the form that both APIs have for what is wrong with a request."""
        body = error_body(message)
        self.begin(status, [(b"content-type", b"application/json")], length=len(body), whole=body)

    def end(self) -> None:
        """Note that the whole answer has been written."""
        self.ended = True
        self._wake()

    @property
    def is_drained(self) -> bool:
        """Whether the client takes what is written for it, so that there is nothing to wait for."""
        return self._line.undrained is None

    @property
    def transport(self) -> asyncio.Transport:
        """Return the transport, whose addresses an application may want."""
        return self._line.transport

    @property
    def is_chunked(self) -> bool:
        """Whether a chunked answer is under way."""
        return self._chunked and not self.ended

    # --- what the connection tells

    def note(self, name: bytes, value: bytes) -> None:
        """Take one of the headers that decide how the request is read. Raise ValueError of a length."""
        if name == b"authorization":
            self.authorization = value
        elif name == b"content-length":
            self.length = int(value)
        elif name == b"host":
            self.host = value
            self.hosts += 1
        elif name == b"upgrade":
            self.upgrade = True
        elif name == b"expect":
            self.expect = value if self.expect is None else self.expect + b"," + value
        else:
            self.codings = value if self.codings is None else self.codings + b"," + value

    def take(self, piece: bytes) -> None:
        """Take a piece of the body, within the route's bounds."""
        if self.fault is not None or self.ended:
            return
        self.size += len(piece)
        if self.size > self.route.max_body_bytes:
            self.fail(BodyFault.TOO_LARGE)
            return
        if self._holder is not None and not self._hold(len(piece)):
            return
        if self._file is not None:
            self._file.append(piece)
            return
        self._pieces.append(piece)
        if self.size > READ_AHEAD_BYTES and (self._by_piece or not self.wanted):
            self._line.pause_reading()
        elif self.size > HEAP_BYTES and (file := spilled(self._pieces)) is not None:
            self._file, self._pieces = file, []
        if self._by_piece:
            self._wake()

    def completed(self) -> None:
        """Note that the body is whole."""
        self.complete = True
        self._wake()

    def fail(self, fault: BodyFault) -> None:
        """Note that there will be no whole body."""
        if self.fault is None and not self.complete:
            self._drop(fault)

    def client_gone(self) -> None:
        """Note that the client has gone away."""
        self.gone = True
        self.fail(BodyFault.BROKEN_OFF)
        self._wake()
        if self._on_gone is not None:
            self._on_gone()
            self._on_gone = None

    def close(self) -> None:
        """Give the body's room back: the request is over."""
        self._on_gone = self._file = None
        self._pieces = []
        self.release_body()

    def _hold(self, size: int) -> bool:
        bodies = self.route.bodies
        if bodies is None or self._holder is None:
            return True
        excess = bodies.take(self._holder, size)
        if excess is not None:
            self._drop(BodyFault.NO_SHARE if excess is Excess.OWN else BodyFault.NO_ROOM)
            return False
        self._held += size
        return True

    def _drop(self, fault: BodyFault) -> None:
        self.fault, self._file = fault, None
        self._pieces = []
        self.release_body()
        self._wake()

    def _want(self) -> None:
        """Let the body come; tell a client that waits to be told."""
        self.wanted = True
        if self.expect is not None and not self.size:
            self.expect = None
            self._line.transport.write(CONTINUE)
        self._line.resume_reading()

    async def _wait(self) -> None:
        self._waiter = self._line.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
