"""Usage events: what a slot keeps of a request is the event it becomes (contract 4, counting 2)."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import usage_event
from proxy.core.usage_event import Admission, Result
from proxy.spool.slots import SLOT_BYTES
from schemas.usage import MAX_EVENT_BYTES, Outcome, Tokens, UsageDraft, UsageSource
from tests.unit.proxy import kit

EXPECTED = Tokens(input_tokens=11, output_tokens=512)


def admission(**changes: Any) -> Admission:
    facts: dict[str, Any] = {
        "idempotency_key": "01KEY",
        "request_id": "0c7b-request",
        "admitted_at": kit.NOW,
        "route": kit.route(charged_groups=("own", "parent", "root")),
        "api_key_prefix": "sky_abcdefghijkl",
        "request_metadata": {"team": "blue"},
        "stream": True,
        "expected": EXPECTED,
    }
    return Admission(**(facts | changes))


@given(st.none() | st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3), st.booleans(), st.datetimes())
def test_an_interrupted_event_has_the_facts_of_the_real_one(
    metadata: dict[str, str] | None, stream: bool, admitted_at: datetime
) -> None:
    admitted_at = admitted_at.replace(tzinfo=UTC)
    admitted = admission(request_metadata=metadata, stream=stream, admitted_at=admitted_at)
    result = Result(EXPECTED, UsageSource.ESTIMATED, Outcome.GATEWAY_INTERRUPTED, 5, 3)
    real = UsageDraft.model_validate_json(usage_event.draft(admitted, result).model_dump_json())
    kept = usage_event.interrupted(usage_event.in_flight(admitted), bill=True)
    assert kept == real.model_copy(update={"latency_ms": None, "first_byte_ms": None})
    assert kept.timestamp.date() == admitted_at.date()
    assert timedelta() <= admitted_at - kept.timestamp < timedelta(milliseconds=1)


def test_an_unbilled_interruption_differs_in_its_tokens_alone() -> None:
    kept = usage_event.in_flight(admission())
    billed, unbilled = usage_event.interrupted(kept, bill=True), usage_event.interrupted(kept, bill=False)
    assert billed.tokens == EXPECTED
    assert unbilled == billed.model_copy(update={"tokens": Tokens(input_tokens=0, output_tokens=0)})


def test_the_largest_request_fits_its_slot_and_its_event_the_topic() -> None:
    metadata = {f"{number:02}": "\x01" * 169 for number in range(16)}  # 16 KiB as JSON, six bytes a character
    assert 16_000 < len(json.dumps(metadata, separators=(",", ":"))) <= 16 * 1024
    route = kit.route(
        slug="s" * 255, external_entity_id="\x01" * 255, charged_groups=("g" * 26,) * 5, workspace_id="w" * 26
    )
    admitted = admission(request_metadata=metadata, route=route, request_id="r" * 36, idempotency_key="k" * 26)
    result = Result(
        Tokens(input_tokens=2**53, output_tokens=2**53, cached_input_tokens=2**53),
        UsageSource.PROVIDER,
        Outcome.GATEWAY_INTERRUPTED,
        10**9,
        10**9,
    )
    assert len(usage_event.in_flight(admitted)) <= SLOT_BYTES - 4
    assert len(usage_event.draft(admitted, result).model_dump_json().encode()) < MAX_EVENT_BYTES - 200


@pytest.mark.parametrize("kept", [b"", b"{}", b'{"idempotencyKey":"01', b"\x00" * 9, b"null"])
def test_what_was_torn_is_no_event(kept: bytes) -> None:
    with pytest.raises(ValueError, match="validation error"):
        usage_event.interrupted(kept, bill=True)
