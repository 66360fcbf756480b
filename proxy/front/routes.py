"""The inference API's paths: what is counted straight from the port to the flow, the rest by way of Litestar.

Never decides anything about a request.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from litestar.handlers import asgi
from litestar.types import Receive, Scope, Send

from proxy.core import replies
from proxy.core.calls import Model
from proxy.core.replies import Reply
from proxy.dialects.routes import table
from proxy.dialects.routes.api import ApiRoute
from proxy.flow import Gateway
from proxy.front import envelopes
from proxy.front.client import HttpClient, MessagesClient
from runtime.http.exchange import Exchange, Route, Routes
from runtime.shares import Shares
from schemas.usage import RouteName

_PATHS = {
    "/v1/chat/completions": RouteName.CHAT_COMPLETIONS,
    "/v1/completions": RouteName.COMPLETIONS,
    "/v1/embeddings": RouteName.EMBEDDINGS,
    "/v1/responses": RouteName.RESPONSES,
}
"""Where JSON is posted and nothing but the body goes on."""
_MESSAGES = "/v1/messages"
_COUNT_TOKENS = "/v1/messages/count_tokens"
_MODEL_SERVER = {
    "/predict/": (RouteName.PREDICT, (b"POST",)),
    "/async_predict/": (RouteName.ASYNC_PREDICT, (b"POST",)),
    "/sync/": (RouteName.SYNC, (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE")),
}
"""Prefixes, and their methods."""

_Serve = Callable[[Exchange], Awaitable[None]]


def metered(
    gateway: Gateway, answered: Counter[int], *, max_body_bytes: int, body_within_s: float, bodies: Shares
) -> Routes:
    """Return the routes whose use is counted; `answered` counts those that have ended, by status."""

    def route(serve: _Serve) -> Route:
        async def counted(exchange: Exchange) -> None:
            try:
                await serve(exchange)
            finally:
                answered[exchange.status] += 1

        return Route(counted, max_body_bytes, body_within_s, bodies)

    served = {path.encode(): {b"POST": route(_complete(gateway, table.ROUTES[name]))} for path, name in _PATHS.items()}
    for path, serve in _messages(gateway).items():
        served[path.encode()] = {b"POST": route(serve)}
    for path, (name, methods) in _MODEL_SERVER.items():
        served[path.encode()] = dict.fromkeys(methods, route(_model_server(gateway, table.ROUTES[name])))
    return served


def _complete(gateway: Gateway, api: ApiRoute) -> _Serve:
    async def complete(exchange: Exchange) -> None:
        await gateway.complete(HttpClient(exchange), api)

    return complete


def _model_server(gateway: Gateway, api: ApiRoute) -> _Serve:
    async def complete(exchange: Exchange) -> None:
        await gateway.complete(HttpClient(exchange, envelopes.model_server(exchange)), api)

    return complete


def _messages(gateway: Gateway) -> dict[str, _Serve]:
    api = table.ROUTES[RouteName.MESSAGES]

    async def complete(exchange: Exchange) -> None:
        await gateway.complete(MessagesClient(exchange, envelopes.messages(exchange)), api)

    async def count_tokens(exchange: Exchange) -> None:
        await gateway.pass_on(MessagesClient(exchange, envelopes.count_tokens(exchange)), api)

    return {_MESSAGES: complete, _COUNT_TOKENS: count_tokens}


def handlers(gateway: Gateway) -> list[Any]:
    """Return the handlers of what is not counted."""

    @asgi([*_PATHS, _MESSAGES, _COUNT_TOKENS], copy_scope=False)
    async def metered_only(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - it asks by name
        await _answer(send, _not_allowed(b"POST"))

    # mounted: the framework gives raw handlers no path parameters
    @asgi("/v1/models", is_mount=True, copy_scope=False)
    async def models(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        allowed = scope.get("method") in ("GET", "HEAD")
        await _answer(send, _models(gateway, scope) if allowed else _not_allowed(b"GET"))

    return [metered_only, models, *_other_methods()]


def _other_methods() -> list[Any]:
    """Return the handlers of the methods that the model server's routes do not take."""

    def handler(path: str, methods: tuple[bytes, ...]) -> Any:
        @asgi(path.rstrip("/"), is_mount=True, copy_scope=False)
        async def refused(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
            await _answer(send, _not_allowed(b", ".join(methods)))

        return refused

    return [handler(path, methods) for path, (_, methods) in _MODEL_SERVER.items()]


async def _answer(send: Send, reply: Reply) -> None:
    headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})


def _models(gateway: Gateway, scope: Scope) -> Reply:
    found = gateway.models(dict(scope["headers"]).get(b"authorization"))
    if isinstance(found, Reply):
        return found
    slug = _slug(scope)
    if not slug:
        return replies.json_reply({"object": "list", "data": [_as_listed(model) for model in found]})
    one = next((model for model in found if model.slug == slug), None)
    return replies.model_not_found(slug) if one is None else replies.json_reply(_as_listed(one))


def _slug(scope: Scope) -> str:
    """Return what follows ``/v1/models/``; its own slash may come raw or as ``%2F``."""
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
