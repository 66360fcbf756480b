"""What the story of a request needs of its neighbours: its client, the upstreams, and what keeps its usage event."""

from collections.abc import Callable
from typing import Protocol

from proxy.core.calls import Envelope, Failure, Key, SpoolUnavailableError, UpstreamRequest
from proxy.core.replies import Headers, Reply
from proxy.dialects.routes.api import ApiRoute
from proxy.reading import Answer
from runtime.memory_files import Body
from schemas.usage import Outcome


class Client(Protocol):
    """The developer's side of one request."""

    authorization: bytes | None
    request_id: str
    """Empty until the request has one."""
    trace: bytes
    """What its usage event says of its trace; empty: nothing."""
    envelope: Envelope | Reply | None
    """What goes on beside the body, or why it may not; None: nothing does."""

    @property
    def is_answered(self) -> bool:
        """Whether its answer has begun."""

    async def body(self, workspace_id: str) -> Body | Reply:
        """Return the whole request body, which takes of that workspace's share, or the answer that refuses it."""

    def release_body(self) -> None:
        """Say that nobody here holds the body any more."""

    async def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """Begin an answer that is sent piece by piece; `lines` are further headers, each with its end."""

    async def send(self, chunk: bytes, *, last: bool = False) -> None:
        """Send a piece of it at once."""

    async def reply(self, reply: Reply) -> None:
        """Return a whole answer."""

    def abort(self) -> None:
        """End an answer that was begun, so that its client sees that it is not whole."""

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once if the client goes away; None: it no longer matters."""


class Upstream(Protocol):
    """Calls the models' servers."""

    async def open(self, request: UpstreamRequest) -> Answer | Failure:
        """Return the answer when its head is there."""


class UsageSink(Protocol):
    """Keeps usage events."""

    @property
    def blocked(self) -> str | None:
        """Say why no event could be kept now, so that no upstream is called for nothing; None: all is well."""

    def append(self, event: bytes, outcome: Outcome, told: Callable[[int | SpoolUnavailableError], None]) -> None:
        """Keep an event; `told` hears its sequence once it is durable, or why it could not be kept."""


class Story(Protocol):
    """What becomes of a request that was let in."""

    async def __call__(self, client: Client, key: Key, api: ApiRoute) -> Reply | None:
        """Serve it, or return what it is to be answered."""
