"""Spans through OpenTelemetry's SDK to a collector, as OTLP over HTTP; its own OTEL_ variables set the rest.

At most 2,048 ended spans wait (OTEL_BSP_MAX_QUEUE_SIZE); while the collector is away or slow, more are dropped, which
the SDK logs. A thread of the SDK sends them.
"""

import asyncio
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime import version
from runtime.telemetry.traces import Attributes, SpanKind

_CLOSE_WITHIN_S = 5.0
_UNNAMED = "unknown_service"


class _OpenSpan:
    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        is_sampled = context.trace_flags.sampled
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01" if is_sampled else ""

    def end(self, attributes: Attributes, *, is_error: bool) -> None:
        self._span.set_attributes(attributes)
        if is_error:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class OtlpTraces:
    """The `Traces` port over the SDK."""

    def __init__(self, role: str) -> None:
        resource = Resource.create({SERVICE_VERSION: version.current()})
        if str(resource.attributes[SERVICE_NAME]).startswith(_UNNAMED):  # else the operator has named it
            resource = resource.merge(Resource({SERVICE_NAME: f"tollgate-{role}"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tollgate")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, carrier: Mapping[str, str]) -> _OpenSpan:
        """Begin the span of a request."""
        context = self._propagator.extract(carrier)
        return _OpenSpan(self._tracer.start_span(name, context, trace.SpanKind.SERVER))

    def add(
        self, name: str, kind: SpanKind, parents: Iterable[str], times_s: tuple[float, float], attributes: Attributes
    ) -> None:
        """Add an ended span below each parent; a parent that cannot be read has none."""
        began_ns, ended_ns = (int(time_s * 1e9) for time_s in times_s)
        for parent in parents:
            context = self._propagator.extract({"traceparent": parent})
            if trace.get_current_span(context).get_span_context().is_valid:
                span = self._tracer.start_span(
                    name, context, trace.SpanKind[kind.value], attributes, start_time=began_ns
                )
                span.end(max(began_ns, ended_ns))

    async def close(self) -> None:
        """Send what is left, in bounded time: a collector that is away keeps no process from its end."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=end, daemon=True, name="the end of traces").start()  # nobody waits for a daemon's end
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WITHIN_S):
                await ended.wait()
