"""One request's client as the flow sees it, over the exchange of the port."""

from collections.abc import Callable

from proxy.core import replies
from proxy.core.calls import Envelope
from proxy.core.replies import Headers, Reply
from proxy.dialects.routes import messages
from runtime.http.bounds import BodyFault
from runtime.http.exchange import NO_ANSWER, Exchange
from runtime.memory_files import Body

STREAM_LINES = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"
"""So that a proxy in between passes each chunk on when it comes (nginx's default is to gather them)."""


class HttpClient:
    """The `Client` port. `start`, `send` and `reply` wait while the client does not take what was sent before."""

    __slots__ = ("_exchange", "authorization", "envelope", "on_gone", "release_body", "request_id", "trace")

    def __init__(self, exchange: Exchange, envelope: Envelope | Reply | None = None) -> None:
        self._exchange = exchange
        self.authorization = exchange.authorization
        self.envelope = envelope
        self.request_id = ""
        self.trace = b""
        self.release_body: Callable[[], None] = exchange.release_body
        self.on_gone: Callable[[Callable[[], None] | None], None] = exchange.on_gone

    @property
    def is_answered(self) -> bool:
        """Whether its answer has begun."""
        return self._exchange.status != NO_ANSWER

    async def body(self, workspace_id: str) -> Body | Reply:
        """Return the whole request body, which takes of that workspace's share, or the answer that refuses it."""
        body = await self._exchange.body(workspace_id)
        return _refused(body, self._exchange) if isinstance(body, BodyFault) else body

    async def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """Begin an answer that is sent piece by piece; `lines` are further headers, each with its end."""
        self._exchange.begin(status, headers, lines + STREAM_LINES)

    async def send(self, chunk: bytes, *, last: bool = False) -> None:
        """Send a piece of it at once."""
        exchange = self._exchange
        exchange.write(chunk, last=last)
        if not exchange.is_drained:
            await exchange.drained()

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        await self._exchange.answer(reply.status, reply.headers, reply.large or reply.body, reply.lines)

    def abort(self) -> None:
        """End an answer that was begun, and with it the connection, without the end that it would have had."""
        self._exchange.cut()


class MessagesClient(HttpClient):
    """A client of the Messages API: its key comes in one of three ways, and errors have that API's shape."""

    __slots__ = ()

    def __init__(self, exchange: Exchange, envelope: Envelope | Reply) -> None:
        super().__init__(exchange, envelope)
        own = next((value for name, value in reversed(exchange.headers) if name == b"x-api-key"), None)
        if own is not None:
            self.authorization = b"Api-Key " + own
        elif (self.authorization or b"").lower().startswith(b"bearer "):
            self.authorization = b"Api-Key " + (self.authorization or b"")[len(b"bearer ") :]

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        if reply.is_error:
            reply.body = messages.error(reply.status, reply.body, self.request_id)
        await super().reply(reply)


def _refused(fault: BodyFault, exchange: Exchange) -> Reply:
    route = exchange.route
    match fault:
        case BodyFault.TOO_LARGE:
            return replies.body_too_large(route.max_body_bytes)
        case BodyFault.TOO_LATE:
            return replies.body_too_late(route.body_within_s or 0)
        case BodyFault.NO_ROOM:
            return replies.full("request bodies")
        case BodyFault.NO_SHARE:
            return replies.share_exceeded("request bodies")
        case _:
            return replies.bad_request(fault.value)
