"""The inference API's HTTP side: Litestar's raw ASGI handlers around the flow (spec 3, design 4.1).

Never decides anything about a request; it reads bodies within their bounds and writes answers.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from litestar.handlers import asgi
from litestar.types import Receive, Scope, Send

from proxy.core import replies
from proxy.core.calls import Model
from proxy.core.replies import Headers, Reply
from proxy.flow import Gateway
from runtime import server

_WATCH_AFTER_S = 0.05
"""Most requests that are refused or fail end before this, and are spared a task that watches their client."""

NO_ANSWER = 0
"""The status of a request that ended before its answer began."""

_PIECE_BYTES = 256 * 1024


class BodyBudget:
    """How many bytes of bodies may be held at once, over all requests (spec 3)."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def take(self, size: int) -> bool:
        """Take room for `size` bytes; False where there is not that much."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Give room back."""
        self._left += size


class BodyRules:
    """The bounds of a request body."""

    def __init__(self, *, max_bytes: int, within_s: float, budget: BodyBudget) -> None:
        self.max_bytes = max_bytes
        self.within_s = within_s
        self.budget = budget


class HttpClient:
    """One request's client, as the flow sees it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, rules: BodyRules) -> None:
        headers = dict(scope["headers"])
        self.authorization: bytes | None = headers.get(b"authorization")
        self._length = headers.get(b"content-length", b"")
        self._receive = receive
        self._send = send
        self._rules = rules
        self._cut_off: Any = (scope.get("extensions") or {}).get(server.CUT_OFF)
        self._held = 0
        self.status = NO_ANSWER
        """Of the answer."""
        self._ended = False
        self._watch: asyncio.TimerHandle | asyncio.Task[None] | None = None

    async def body(self) -> bytes | Reply:
        """Read the body within its bounds."""
        if self._length.isdigit() and int(self._length) > self._rules.max_bytes:
            return replies.body_too_large(self._rules.max_bytes)
        try:
            async with asyncio.timeout(self._rules.within_s):
                return await self._read()
        except TimeoutError:
            return replies.body_too_late(self._rules.within_s)

    async def start(self, status: int, headers: Headers) -> None:
        """Begin an answer."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, chunk: bytes, *, last: bool = False) -> None:
        """Send a piece of it; waits while the client does not take what was sent before."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})
        self._ended = last

    async def reply(self, reply: Reply) -> None:
        """Give a whole answer."""
        await self.start(reply.status, [*reply.headers, (b"content-length", b"%d" % len(reply.body))])
        body = reply.body
        end = max(0, len(body) - _PIECE_BYTES)
        for start in range(0, end, _PIECE_BYTES):  # so that a client that does not read is felt, not buffered for
            await self.send(body[start : start + _PIECE_BYTES])
        await self.send(body[-(-end // _PIECE_BYTES) * _PIECE_BYTES :], last=True)

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Watch for the client's going away, or stop watching."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if callback is not None:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(_WATCH_AFTER_S, self._begin_watch, callback)

    def close(self) -> None:
        """Give the body's room back; the request is over. A client that did not take its answer is cut off."""
        if self.status != NO_ANSWER and not self._ended and self._cut_off is not None:
            self._cut_off["call"]()
        self._rules.budget.give_back(self._held)
        self._held = 0

    def _begin_watch(self, callback: Callable[[], None]) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._await_gone(callback))

    async def _await_gone(self, callback: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        callback()

    async def _read(self) -> bytes | Reply:
        pieces: list[bytes] = []
        while True:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                return replies.bad_request("The body broke off.")
            piece: bytes = message.get("body", b"")
            if piece:
                if self._held + len(piece) > self._rules.max_bytes:
                    return replies.body_too_large(self._rules.max_bytes)
                if not self._rules.budget.take(len(piece)):
                    return replies.unavailable("the gateway holds as many request bodies as it may")
                self._held += len(piece)
                pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def handlers(gateway: Gateway, rules: BodyRules, answered: Counter[int]) -> list[Any]:
    """Give the inference API's handlers; `answered` counts chat completions that have ended, by status."""

    @asgi("/v1/chat/completions", copy_scope=False)
    async def chat_completions(scope: Scope, receive: Receive, send: Send) -> None:
        client = HttpClient(scope, receive, send, rules)
        if scope.get("method") != "POST":
            await client.reply(_not_allowed(b"POST"))
            return
        try:
            await gateway.complete(client)
        finally:
            answered[client.status] += 1
            client.close()

    # mounted: the framework gives raw handlers no path parameters
    @asgi("/v1/models", is_mount=True, copy_scope=False)
    async def models(scope: Scope, receive: Receive, send: Send) -> None:
        client = HttpClient(scope, receive, send, rules)
        if scope.get("method") not in ("GET", "HEAD"):
            await client.reply(_not_allowed(b"GET"))
            return
        await client.reply(_models(gateway, client, _slug(scope)))

    return [chat_completions, models]


def _models(gateway: Gateway, client: HttpClient, slug: str) -> Reply:
    found = gateway.models(client.authorization)
    if isinstance(found, Reply):
        return found
    if not slug:
        return replies.json_reply({"object": "list", "data": [_as_listed(model) for model in found]})
    one = next((model for model in found if model.slug == slug), None)
    return replies.model_not_found(slug) if one is None else replies.json_reply(_as_listed(one))


def _slug(scope: Scope) -> str:
    """Give what follows ``/v1/models/``; its own slash may come raw or as ``%2F``."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    return unquote_to_bytes(path.split(b"?")[0].removeprefix(b"/v1/models").strip(b"/")).decode("utf-8", "replace")


def _as_listed(model: Model) -> dict[str, Any]:
    return {
        "id": model.slug,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": model.slug.partition("/")[0],
    }


def _not_allowed(allowed: bytes) -> Reply:
    reply = replies.error(405, f"Use {allowed.decode()}.", kind="invalid_request_error")
    reply.headers.append((b"allow", allowed))
    return reply
