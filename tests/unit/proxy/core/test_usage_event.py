"""Usage events: what a slot keeps of a request is the event it becomes (contract 4, counting 2)."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import usage_event
from proxy.limits.estimate import TokenCounts
from proxy.spool.slots import SLOT_BYTES
from schemas.usage import MAX_EVENT_BYTES, MOST_TOKENS, Outcome, RouteName, Tokens, UsageDraft, UsageSource
from tests.unit.proxy import kit

EXPECTED = TokenCounts(11, 512)


def begun(**changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "idempotency_key": "01KEY",
        "request_id": "0c7b-request",
        "admitted_at": kit.NOW,
        "route": kit.route(charged_groups=("own", "parent", "root")).event,
        "api_key_prefix": "sky_abcdefghijkl",
        "request_metadata": {"team": "blue"},
        "stream": True,
    }
    return usage_event.begun(**(facts | changes))


def kept(**changes: Any) -> bytes:
    """Return what the slot of a request keeps."""
    return usage_event.in_flight(begun(**changes), EXPECTED)


@given(
    name=st.text(max_size=20),
    metadata=st.none() | st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
    admitted_at=st.datetimes(),
    tokens=st.tuples(*[st.integers(0, MOST_TOKENS)] * 3).map(lambda counts: TokenCounts(*counts)),
    times=st.tuples(*[st.none() | st.integers(0, 10**9)] * 2),
    ends=st.tuples(st.sampled_from(UsageSource), st.sampled_from(Outcome), st.booleans(), st.sampled_from(RouteName)),
)
def test_the_bytes_are_what_the_contract_says(  # noqa: PLR0917 - hypothesis gives all by name
    name: str,
    metadata: dict[str, str] | None,
    admitted_at: datetime,
    tokens: TokenCounts,
    times: tuple[int | None, int | None],
    ends: tuple[UsageSource, Outcome, bool, RouteName],
) -> None:
    """Against the pydantic model: the same members, each with the same JSON."""
    source, outcome, stream, came_by = ends
    admitted_at = admitted_at.replace(tzinfo=UTC)
    route = kit.route(slug=f"lab/{name}", external_entity_id=name, name=came_by)
    event = usage_event.ended(
        begun(request_metadata=metadata, stream=stream, admitted_at=admitted_at, route=route.event),
        tokens,
        source,
        outcome,
        times,
    )
    wanted = UsageDraft(
        idempotency_key="01KEY",
        request_id="0c7b-request",
        timestamp=admitted_at,
        workspace_id=route.workspace_id,
        group_id=route.group_id,
        charged_groups=route.charged_groups,
        external_entity_id=name,
        api_key_prefix="sky_abcdefghijkl",
        model_slug=route.slug,
        request_metadata=metadata,
        tokens=Tokens(**msgspec.structs.asdict(tokens)),
        usage_source=source,
        outcome=outcome,
        route=came_by,
        stream=stream,
        latency_ms=times[0],
        first_byte_ms=times[1],
    )
    assert json.loads(event) == json.loads(wanted.model_dump_json())


def test_an_interrupted_event_has_the_facts_of_the_real_one() -> None:
    real = usage_event.ended(begun(), EXPECTED, UsageSource.ESTIMATED, Outcome.GATEWAY_INTERRUPTED, (5, 3))
    found = usage_event.interrupted(kept(), bill=True)
    assert found == UsageDraft.model_validate_json(real).model_copy(update={"latency_ms": None, "first_byte_ms": None})


def test_an_unbilled_interruption_differs_in_its_tokens_alone() -> None:
    left = kept()
    billed, unbilled = usage_event.interrupted(left, bill=True), usage_event.interrupted(left, bill=False)
    assert billed.tokens == Tokens(input_tokens=11, output_tokens=512)
    assert unbilled == billed.model_copy(update={"tokens": Tokens(input_tokens=0, output_tokens=0)})


def test_the_largest_request_fits_its_slot_and_its_event_the_topic() -> None:
    metadata = {f"{number:02}": "\x01" * 169 for number in range(16)}  # 16 KiB as JSON, six bytes a character
    assert 16_000 < len(json.dumps(metadata, separators=(",", ":"))) <= 16 * 1024
    route = kit.route(
        slug="s" * 255, external_entity_id="\x01" * 255, charged_groups=("g" * 26,) * 5, workspace_id="w" * 26
    )
    most = TokenCounts(2**53, 2**53, 2**53)
    start = begun(request_metadata=metadata, route=route.event, request_id="r" * 36, idempotency_key="k" * 26)
    whole = usage_event.ended(start, most, UsageSource.PROVIDER, Outcome.GATEWAY_INTERRUPTED, (10**9, 10**9))
    assert len(usage_event.in_flight(start, most)) <= SLOT_BYTES - 4
    assert len(whole) < MAX_EVENT_BYTES - 200


@pytest.mark.parametrize("kept", [b"", b"{}", b'{"idempotencyKey":"01', b"\x00" * 9, b"null"])
def test_what_was_torn_is_no_event(kept: bytes) -> None:
    with pytest.raises(ValueError, match="validation error"):
        usage_event.interrupted(kept, bill=True)


def test_an_older_event_came_by_chat_completions_and_a_newer_ones_route_is_kept() -> None:
    members = json.loads(usage_event.ended(begun(), EXPECTED, UsageSource.PROVIDER, Outcome.COMPLETE, (5, 3)))
    assert members.pop("route") == "chat.completions"
    assert UsageDraft.model_validate(members).route == RouteName.CHAT_COMPLETIONS
    assert UsageDraft.model_validate(members | {"route": "of.next.year"}).route == "of.next.year"
