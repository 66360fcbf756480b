"""One request's client as the flow sees it, over the exchange of the port."""

from collections.abc import Callable

from proxy.core import replies
from proxy.core.replies import Headers, Reply
from runtime.http.bounds import BodyFault
from runtime.http.exchange import NO_ANSWER, Exchange

STREAM_HEADERS: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
"""So that a proxy in between passes each chunk on when it comes (nginx's default is to gather them)."""


class HttpClient:
    """The `Client` port. `start`, `send` and `reply` wait while the client does not take what was sent before."""

    __slots__ = ("_exchange", "authorization", "on_gone", "release_body")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.authorization = exchange.authorization
        self.release_body: Callable[[], None] = exchange.release_body
        self.on_gone: Callable[[Callable[[], None] | None], None] = exchange.on_gone

    @property
    def is_answered(self) -> bool:
        """Whether its answer has begun."""
        return self._exchange.status != NO_ANSWER

    async def body(self, workspace_id: str) -> bytes | Reply:
        """Return the whole request body, which takes of that workspace's share, or the answer that refuses it."""
        body = await self._exchange.body(workspace_id)
        return _refused(body, self._exchange) if isinstance(body, BodyFault) else body

    async def start(self, status: int, headers: Headers) -> None:
        """Begin an answer that is sent piece by piece."""
        self._exchange.begin(status, headers + STREAM_HEADERS)

    async def send(self, chunk: bytes, *, last: bool = False) -> None:
        """Send a piece of it at once."""
        exchange = self._exchange
        exchange.write(chunk, last=last)
        if not exchange.is_drained:
            await exchange.drained()

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        await self._exchange.answer(reply.status, reply.headers, reply.body)


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
