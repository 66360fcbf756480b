"""The model server's own routes: `/predict/{slug}`, `/async_predict/{slug}` and `/sync/{slug}/{path}`.

Bodies and answers pass unchanged in both directions. What is counted is the `usage` of an answer, where it is JSON or a
stream of JSON events and tells one; nothing is estimated.
"""

from typing import Any

from proxy.dialects import answer_json, forms, usage
from proxy.dialects.chat import ChatRequest
from proxy.dialects.events import EventCutter
from proxy.dialects.routes.api import ApiRoute
from proxy.limits.estimate import TokenCounts
from schemas.targets import Provider
from schemas.usage import RouteName

MOST_LOOKED_AT_BYTES = 16 * 1024 * 1024
"""Of an answer; beyond it only a stream's events before count."""


def parse(body: bytes) -> ChatRequest:
    """Take a body as it is: it may be anything."""
    return ChatRequest(
        body=body,
        slug="",
        model=(0, 0),
        stream=False,
        stream_options=None,
        include_usage=False,
        metadata=None,
        max_tokens=None,
        choices=1,
        stores=False,
    )


def upstream_body(request: ChatRequest, target_model: str | None, *, stored_metadata_only: bool = False) -> bytes:  # noqa: ARG001 - other routes' need them
    """Return the body as it came."""
    return request.body


class OpaqueStream:
    """Passes an answer on and looks for its usage on the side: the `Stream` port."""

    def __init__(self) -> None:
        self.tokens: TokenCounts | None = None
        self.content_bytes = 0
        self.done = False
        self.failed = False
        self.held = b""
        self._looked_at = 0
        self._ended = False
        self._text = bytearray()
        """What has come, while it may be a JSON object."""
        self._events: EventCutter | None = None
        self._is_decided = False
        """Whether it is known to be a stream of events, a JSON object or neither."""
        self._is_looked_into = True

    @property
    def choices(self) -> int:
        """How many choices have come: nobody knows."""
        return 1

    @property
    def held_bytes(self) -> int:
        """How much of it is gathered here."""
        return len(self._text)

    @property
    def is_whole(self) -> bool:
        """Whether it came to a clean end, which is all that can be known of it."""
        return self._ended

    @property
    def is_counted(self) -> bool:
        """Whether it told of tokens."""
        return self.tokens is not None

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; all of it may leave at once."""
        if self._is_looked_into:
            self._look(chunk)
        return chunk

    def finish(self) -> None:
        """Take the end of the upstream's bytes."""
        self._ended = True
        self._take([bytes(self._text)])
        self._text.clear()

    def error_event(self, status: int, error: bytes) -> None:
        """Return None: there is no telling it in a form that nobody knows."""

    def _look(self, chunk: bytes) -> None:
        self._looked_at += len(chunk)
        if self._looked_at > MOST_LOOKED_AT_BYTES:
            self._look_no_longer()
        elif self._events is not None:
            self._take(self._events.feed(chunk))
        else:
            self._text += chunk
            if not self._is_decided:
                self._decide()

    def _decide(self) -> None:
        """Gather a JSON object, follow events, and let all else go: what is binary would only fill the memory."""
        begun = bytes(self._text[: forms.MOST_BLANKS + 1])
        is_stream = forms.is_stream(begun, declared=False)
        self._is_decided = is_stream is not None
        if is_stream:
            self._events = EventCutter()
            self._take(self._events.feed(bytes(self._text)))
            self._text.clear()
        elif self._is_decided and not forms.is_object(begun):
            self._look_no_longer()

    def _look_no_longer(self) -> None:
        self._is_looked_into, self._events = False, None
        self._text.clear()

    def _take(self, texts: list[bytes]) -> None:
        for text in texts:
            answer = answer_json.read(text) if b"usage" in text else None
            tokens = _tokens(answer) if answer is not None else None
            self.tokens = tokens or self.tokens


def _tokens(answer: dict[str, Any]) -> TokenCounts | None:
    """Return the counts of an answer, or of the `response` in an event of the Responses API."""
    inner = answer.get("response")
    return usage.reported(answer) or (usage.reported(inner) if isinstance(inner, dict) else None)


def _route(name: RouteName, path: str, *, token_limits_bind: bool = True) -> ApiRoute:
    return ApiRoute(
        name=name,
        upstream_path=path,
        providers=frozenset((Provider.BASETEN,)),
        parse=parse,
        upstream_body=upstream_body,
        stream=lambda _request, _slug: OpaqueStream(),
        has_output=False,
        is_opaque=True,
        token_limits_bind=token_limits_bind,
    )


PREDICT = _route(RouteName.PREDICT, "/predict")
ASYNC_PREDICT = _route(RouteName.ASYNC_PREDICT, "/async_predict", token_limits_bind=False)
SYNC = _route(RouteName.SYNC, "/sync")
