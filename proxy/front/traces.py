"""The spans of a request at the proxy: the request, the upstream's call, the usage event. Off, nobody calls this.

No prompt, answer or key is in any of them.
"""

import time
from collections.abc import Awaitable
from typing import Protocol

from proxy.call import Call
from proxy.core import usage_event
from proxy.core.endings import Ending, Refused
from runtime.deadlines import Deadlines
from runtime.http.exchange import Exchange
from runtime.telemetry.traces import SpanKind, Traces

_FAULT = 500
_NAMES = {b"traceparent": "traceparent", b"tracestate": "tracestate"}


class _Client(Protocol):
    """What is told of a request."""

    request_id: str
    trace: bytes


class RequestTraces:
    """The spans of one proxy."""

    def __init__(self, traces: Traces, deadlines: Deadlines) -> None:
        self._traces = traces
        self._deadlines = deadlines

    async def serve(self, path: str, exchange: Exchange, client: _Client, serve: Awaitable[None]) -> None:
        """Have a request of a route's path served within a span, below the one that its client names."""
        method = exchange.method.decode("latin-1")
        told = {name: value.decode("latin-1") for raw, value in exchange.headers if (name := _NAMES.get(raw))}
        span = self._traces.begin(f"{method} {path}", told)
        if span.traceparent:
            client.trace = usage_event.of_trace(span.traceparent)
        try:
            await serve
        finally:
            status = exchange.status
            attributes: dict[str, str | int] = {
                "http.request.method": method,
                "http.route": path,
                "http.response.status_code": status,
                "tollgate.request_id": client.request_id,
            }
            span.end(attributes, is_error=status >= _FAULT)

    def ended(self, call: Call, ending: Ending) -> None:
        """Add the upstream's call and the usage event of a call that has ended, the event durable."""
        parent = usage_event.trace_of(call.event)
        if not parent:
            return
        parents = (parent.decode("ascii"),)
        now_s, loop_s, route = time.time(), self._deadlines.loop.time(), call.route
        began_s = now_s - loop_s + call.started_s
        ended_s = now_s - loop_s + (call.ended_s or loop_s)
        attributes: dict[str, str | int] = {
            "tollgate.request_id": call.request_id,
            "tollgate.workspace_id": route.workspace_id,
            "tollgate.group_id": route.group_id,
            "gen_ai.request.model": route.slug,
            "tollgate.route": route.name,
        }
        self._traces.add("upstream", SpanKind.CLIENT, parents, (began_s, ended_s), attributes)
        if not isinstance(ending, Refused):
            attributes["tollgate.outcome"] = ending.outcome.value
            self._traces.add("usage event", SpanKind.INTERNAL, parents, (ended_s, now_s), attributes)
