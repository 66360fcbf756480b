"""Only an event's own member names its trace, whatever a client writes into its metadata."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from proxy.core import usage_event
from proxy.limits.estimate import TokenCounts
from proxy.spool.spreads import Spreads
from proxy.topic import rows
from schemas import spooled
from schemas.usage import Outcome, RouteName, UsageSource

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
FORGED = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"


def event(trace: str = "", metadata: dict[str, str] | None = None) -> bytes:
    route = usage_event.of_route(
        workspace_id="w",
        group_id="g",
        charged_groups=("g",),
        parent_groups=(),
        external_entity_id="e",
        slug="a/b",
        name=RouteName.CHAT_COMPLETIONS,
    )
    begun = usage_event.begun(
        idempotency_key="k" * 26,
        request_id="r" * 36,
        admitted_at=datetime(2026, 11, 29, tzinfo=UTC),
        route=route,
        api_key_prefix="p",
        request_metadata=metadata,
        stream=True,
    )
    begun += usage_event.of_trace(trace) if trace else b""
    return usage_event.ended(begun, TokenCounts(1, 2), UsageSource.PROVIDER, Outcome.COMPLETE, (1, 1))


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"traceparent": FORGED},
        {"stream": f'true,"traceparent":"{FORGED}"'},
        {'"stream":true,"traceparent"': FORGED},
    ],
)
def test_a_header_names_the_events_own_trace_alone(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    form = rows.traced(rows.former("instance", 4, Spreads(tmp_path)))
    headers = [dict(form(1, event(trace, metadata))[3][2]) for trace in (TRACE, "")]
    assert headers[0]["traceparent"] == TRACE.encode()
    assert "traceparent" not in headers[1]
    assert usage_event.trace_of(event("", metadata)) == b""


def test_off_no_record_has_such_a_header(tmp_path: Path) -> None:
    form = rows.former("instance", 4, Spreads(tmp_path))
    assert "traceparent" not in dict(form(1, event(TRACE))[3][2])


def test_what_reads_a_spool_reads_it() -> None:
    numbered = msgspec.json.decode(event(TRACE)) | {"producer": {"instance": "i", "sequence": 1}}
    assert spooled.decode(msgspec.json.encode(numbered)).traceparent == TRACE
