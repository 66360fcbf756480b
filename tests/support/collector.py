"""A collector of OpenTelemetry's, for tests: takes traces as OTLP over HTTP and keeps them."""

import gzip
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """One span as it came."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


@dataclass
class Collector:
    """What came so far."""

    spans: list[Received] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def of(self, trace_id: str) -> dict[str, Received]:
        """Return the spans of a trace by their names."""
        return {one.name: one for one in tuple(self.spans) if one.trace_id == trace_id}

    def take(self, body: bytes) -> None:
        """Keep what a request holds."""
        self.raw.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            for span in (one for scope in resource.scope_spans for one in scope.spans):
                told = {one.key: one.value.string_value or str(one.value.int_value) for one in span.attributes}
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                self.spans.append(Received(named["service.name"], span.name, *ids, told))


@contextmanager
def running() -> Iterator[Collector]:
    """Run a collector, and have processes that are started meanwhile tell it of their spans at once."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_packed = self.headers.get("content-encoding") == "gzip"
            collector.take(gzip.decompress(body) if is_packed else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    os.environ.update(told)
    try:
        yield collector
    finally:
        for name in told:
            del os.environ[name]
        server.shutdown()
        thread.join()
        server.server_close()
