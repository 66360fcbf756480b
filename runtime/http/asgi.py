"""Hands an exchange to an ASGI 3 application (asgi.readthedocs.io, HTTP contract 2.3).

What it holds of a body is what is read ahead of the application.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from runtime.http.bounds import BodyFault
from runtime.http.exchange import Exchange, Headers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no header may have in it: an application could end the head with it."""


def split(target: bytes) -> tuple[bytes, bytes]:
    """Return the path and the query of a request's target, as they were sent (RFC 9112 3.2)."""
    path, _, query = _ABSOLUTE.sub(b"", target, count=1).partition(b"#")[0].partition(b"?")
    return path or b"/", query


def is_elsewhere(target: bytes, host: bytes) -> bool:
    """Tell whether an absolute target names another host than the header does: only one of them can be meant."""
    absolute = _ABSOLUTE.match(target)
    return absolute is not None and absolute[0].partition(b"://")[2].lower() != host.strip().lower()


class AsgiHandler:
    """The handler of a route that an ASGI application answers."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        cycle = _Cycle(exchange)
        await self._app(_scope(exchange), cycle.receive, cycle.send)


class _Cycle:
    """What the application is given to read the request and to write the answer."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._is_read = False
        self._status = 0
        self._headers: Headers = []
        self._left: int | None = None
        """How much of the body that the head has told is still to come; None: it told nothing."""

    async def receive(self) -> Message:
        exchange = self._exchange
        if not self._is_read:
            piece = await exchange.read()
            if not isinstance(piece, BodyFault):
                self._is_read = exchange.complete
                return {"type": "http.request", "body": piece, "more_body": not exchange.complete}
            if not exchange.status and not exchange.gone:
                exchange.refuse(piece.status, piece.value)
            self._is_read = True
        await exchange.until_gone()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        exchange = self._exchange
        if exchange.ended:
            return  # it was refused meanwhile
        if message["type"] == "http.response.start":
            self._start(message)
            return
        body, last = message.get("body", b""), not message.get("more_body", False)
        if not exchange.status:
            exchange.begin(self._status, self._headers, length=self._left)
        if self._left is not None and exchange.method != b"HEAD":
            self._left -= len(body)
            if self._left < 0 or (last and self._left):
                raise RuntimeError("the application's answer is not as long as it said")
        exchange.write(body, last=last)
        await exchange.drained()

    def _start(self, message: Message) -> None:
        self._status = message["status"]
        for name, value in message.get("headers", ()):
            if _FORBIDDEN.search(name) or _FORBIDDEN.search(value):
                raise ValueError(f"the application's header {name!r} cannot be sent")
            if name == b"connection":
                self._exchange.keep_alive &= value.lower() != b"close"
                continue
            if name == b"content-length":
                self._left = int(value)
            elif name != b"transfer-encoding":
                self._headers.append((name, value))


def _scope(exchange: Exchange) -> Message:
    path, query = split(exchange.target)
    transport = exchange.transport
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.0" if exchange.is_1_0 else "1.1",
        "server": transport.get_extra_info("sockname")[:2],
        "client": transport.get_extra_info("peername")[:2],
        "scheme": "http",
        "root_path": "",
        "method": exchange.method.decode("ascii"),
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "headers": exchange.headers,
        "state": {},
    }
