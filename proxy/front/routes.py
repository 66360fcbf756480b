"""The inference API's paths: what is counted straight from the port to the flow, the rest by way of Litestar."""

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from litestar.handlers import asgi
from litestar.types import Receive, Scope, Send

from proxy.admission import Admissions
from proxy.core import replies
from proxy.core.calls import Model
from proxy.core.replies import Reply
from proxy.dialects.routes import table
from proxy.flow import Gateway
from proxy.front import envelopes
from proxy.front.client import HttpClient, MessagesClient
from proxy.front.host_wall import HostWall
from proxy.front.traces import RequestTraces
from proxy.own_usage import OwnUsage
from proxy.refusals import Refusals
from proxy.unmetered import Unmetered
from runtime.http.exchange import Exchange, PathRoute, Routes
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

_Made = Callable[[Exchange], HttpClient]
_AnswerNamed = Callable[[Send, Reply], Awaitable[None]]
_Serve = Callable[[HttpClient], Awaitable[None]]


def metered(
    gateway: Gateway,
    unmetered: Unmetered,
    refusals: Refusals,
    wall: HostWall,
    answered: Counter[int],
    *,
    max_body_bytes: int,
    body_within_s: float,
    bodies: Shares,
    traces: RequestTraces | None,
) -> Routes:
    """Return the routes that the flow serves; `answered` counts those that have ended, by status."""

    def route(path: str, made: _Made, serve: _Serve) -> PathRoute:
        async def counted(exchange: Exchange) -> None:
            try:
                client = made(exchange)
                refusal = wall.refusal(exchange.host, client.authorization)
                answering = serve(client) if refusal is None else refusals.answer(client, refusal)
                await (answering if traces is None else traces.serve(path, exchange, client, answering))
            finally:
                answered[exchange.status] += 1

        return PathRoute(counted, max_body_bytes, body_within_s, bodies)

    def complete(name: RouteName) -> _Serve:
        return partial(gateway.complete, api=table.ROUTES[name])

    pass_on = partial(gateway.complete, api=table.ROUTES[RouteName.MESSAGES], story=unmetered.serve)
    served = {path.encode(): {b"POST": route(path, HttpClient, complete(name))} for path, name in _PATHS.items()}
    served[_MESSAGES.encode()] = {b"POST": route(_MESSAGES, _messages_client, complete(RouteName.MESSAGES))}
    served[_COUNT_TOKENS.encode()] = {b"POST": route(_COUNT_TOKENS, _count_tokens_client, pass_on)}
    for path, (name, methods) in _MODEL_SERVER.items():
        served[path.encode()] = dict.fromkeys(methods, route(path, _model_server_client, complete(name)))
    return served


def _messages_client(exchange: Exchange) -> HttpClient:
    return MessagesClient(exchange, envelopes.messages(exchange))


def _count_tokens_client(exchange: Exchange) -> HttpClient:
    return MessagesClient(exchange, envelopes.count_tokens(exchange))


def _model_server_client(exchange: Exchange) -> HttpClient:
    return HttpClient(exchange, envelopes.model_server(exchange))


def handlers(admissions: Admissions, own_usage: OwnUsage, refusals: Refusals, wall: HostWall) -> list[Any]:
    """Return the handlers of what is not counted."""

    async def answer(send: Send, reply: Reply) -> None:
        refusals.name(reply)
        await _answer(send, reply)

    @asgi([*_PATHS, _MESSAGES, _COUNT_TOKENS], copy_scope=False)
    async def metered_only(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - it asks by name
        await answer(send, _not_allowed(b"POST"))

    # mounted: the framework gives raw handlers no path parameters
    @asgi("/v1/models", is_mount=True, copy_scope=False)
    async def models(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        allowed = scope.get("method") in ("GET", "HEAD")
        await answer(send, _models(admissions, wall, scope) if allowed else _not_allowed(b"GET"))

    @asgi("/v1/usage", copy_scope=False)
    async def usage(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        allowed = scope.get("method") in ("GET", "HEAD")
        await answer(send, _usage(own_usage, wall, scope) if allowed else _not_allowed(b"GET"))

    return [metered_only, models, usage, *_other_methods(answer)]


def _other_methods(answer: _AnswerNamed) -> list[Any]:
    """Return the handlers of the methods that the model server's routes do not take."""

    def handler(path: str, methods: tuple[bytes, ...]) -> Any:
        @asgi(path.rstrip("/"), is_mount=True, copy_scope=False)
        async def refused(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - it asks by name
            await answer(send, _not_allowed(b", ".join(methods)))

        return refused

    return [handler(path, methods) for path, (_, methods) in _MODEL_SERVER.items()]


async def _answer(send: Send, reply: Reply) -> None:
    lines = [line.partition(b": ") for line in reply.lines.splitlines()]
    headers = [*reply.headers, *((name, value) for name, _, value in lines)]
    headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})


def _usage(own_usage: OwnUsage, wall: HostWall, scope: Scope) -> Reply:
    authorization, refusal = _asked(wall, scope)
    return own_usage.answer(authorization) if refusal is None else refusal


def _asked(wall: HostWall, scope: Scope) -> tuple[bytes | None, Reply | None]:
    """Return the Authorization header of a call, and what refuses it under its host name."""
    headers = dict(scope["headers"])
    authorization = headers.get(b"authorization")
    return authorization, wall.refusal(headers.get(b"host", b""), authorization)


def _models(admissions: Admissions, wall: HostWall, scope: Scope) -> Reply:
    authorization, refusal = _asked(wall, scope)
    found = admissions.models(authorization) if refusal is None else refusal
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
