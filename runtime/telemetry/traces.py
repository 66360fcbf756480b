"""Traces of a request's life for an OpenTelemetry collector, where the operator names one (contract 6).

Off, nothing of OpenTelemetry is imported: its packages are an extra of the installation.
"""

import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Protocol

from runtime.settings import SettingsError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables; one of them turns traces on."""

Attributes = Mapping[str, str | int]


class SpanKind(StrEnum):
    """A span's role among processes, as OpenTelemetry names it."""

    CLIENT = "CLIENT"
    CONSUMER = "CONSUMER"
    INTERNAL = "INTERNAL"


class OpenSpan(Protocol):
    """A span that has begun."""

    traceparent: str
    """What its children name it by (W3C Trace Context); empty: it is not sampled, and they are not to be made."""

    def end(self, attributes: Attributes, *, is_error: bool) -> None:
        """End it now."""


class Traces(Protocol):
    """Makes spans; none of its calls waits for the collector. Times in seconds since 1970."""

    def begin(self, name: str, carrier: Mapping[str, str]) -> OpenSpan:
        """Begin the span of a request, below the one that `carrier` (`traceparent`, `tracestate`) names, if any."""

    def add(
        self, name: str, kind: SpanKind, parents: Iterable[str], times_s: tuple[float, float], attributes: Attributes
    ) -> None:
        """Add a span that began and ended at `times_s` below each of `parents`, which are `traceparent`s."""

    async def close(self) -> None:
        """Send what is left, in bounded time."""


def opened(role: str) -> Traces | None:
    """Return what makes the spans of a process; None: no collector is named. Raise SettingsError."""
    named = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if named is None:
        return None
    try:
        from runtime.telemetry.otlp import OtlpTraces  # noqa: PLC0415 - an extra
    except ImportError:
        needed = "pip install 'tollgate-gateway[otel]'"
        raise SettingsError(f"{named} is set, and traces need OpenTelemetry's packages: {needed}") from None
    return OtlpTraces(role)
