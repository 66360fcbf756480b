"""What a lab is sent of an event is its contract, byte for byte, for any event and wherever it was read."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas import spooled
from schemas.delivery import BillingEvent
from schemas.spooled import SpooledEvent
from schemas.usage import Kind, Outcome, Producer, RouteName, Tokens, UsageEvent, UsageSource
from tests.support.events import as_contract
from webhooks.core import batching

texts = st.text(max_size=12)
counts = st.integers(0, 10**9)
moments = st.datetimes(min_value=datetime(1000, 1, 1)).map(  # noqa: DTZ001 - the zone comes with the next call
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=UTC)
)
events = st.fixed_dictionaries(
    {
        "idempotency_key": texts,
        "request_id": texts,
        "timestamp": moments,
        "workspace_id": texts,
        "group_id": texts,
        "charged_groups": st.lists(texts, max_size=3).map(tuple),
        "external_entity_id": texts,
        "api_key_prefix": texts,
        "model_slug": texts,
        "request_metadata": st.none() | st.dictionaries(texts, texts, max_size=3),
        "tokens": st.tuples(counts, counts, counts).map(
            lambda each: Tokens(input_tokens=each[0], output_tokens=each[1], cached_input_tokens=each[2])
        ),
        "usage_source": st.sampled_from(UsageSource),
        "outcome": st.sampled_from(Outcome),
        "kind": st.sampled_from(Kind),
        "corrects": st.none() | texts,
        "reason": st.none() | texts,
        "route": st.sampled_from(RouteName).map(str),
        "stream": st.booleans(),
        "latency_ms": st.none() | counts,
        "first_byte_ms": st.none() | counts,
        "producer": st.integers(1, 2**63 - 1).map(lambda number: Producer(instance="one", sequence=number)),
    }
).map(lambda members: UsageEvent(**members))


def billed_by_contract(event: UsageEvent) -> bytes:
    is_correction = event.kind is Kind.CORRECTION
    own: dict[str, Any] = {"kind": event.kind, "corrects": event.corrects, "reason": event.reason}
    named = {name for name in BillingEvent.model_fields if name in UsageEvent.model_fields} - own.keys()
    given = {name: getattr(event, name) for name in named} | {"external_customer_id": event.external_entity_id}
    made = BillingEvent(**given, **(own if is_correction else {}))
    return made.model_dump_json(exclude=set() if is_correction else set(own)).encode()


@given(events)
def test_an_event_is_rendered_as_its_contract_says(event: UsageEvent) -> None:
    assert batching.bill(event).text == billed_by_contract(event)
    assert batching.bill(spooled.decode(event.model_dump_json())).text == billed_by_contract(event)


@given(events)
def test_a_spooled_event_says_what_its_contract_says(event: UsageEvent) -> None:
    read = spooled.decode(event.model_dump_json())
    assert as_contract(read) == event
    for name in UsageEvent.model_fields.keys() - {"tokens", "producer"}:
        assert getattr(read, name) == getattr(event, name)
    assert read.timestamp.tzinfo is UTC


def test_it_has_the_members_of_its_contract_in_their_order_and_takes_what_is_missing_as_that_does() -> None:
    assert list(SpooledEvent.__struct_fields__) == list(UsageEvent.model_fields)
    assert list(SpooledEvent.__struct_encode_fields__) == [
        field.serialization_alias or field.alias for field in UsageEvent.model_fields.values()
    ]
    members = {
        field.alias for field in UsageEvent.model_fields.values() if field.is_required() and field.alias is not None
    }
    event = {
        "idempotencyKey": "k",
        "requestId": "r",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "workspaceId": "w",
        "groupId": "g",
        "chargedGroups": ["g"],
        "externalEntityId": "e",
        "apiKeyPrefix": "p",
        "modelSlug": "m",
        "tokens": {"inputTokens": 1, "outputTokens": 2},
        "usageSource": "provider",
        "outcome": "complete",
        "stream": False,
        "latencyMs": None,
        "firstByteMs": None,
        "producer": {"instance": "i", "sequence": 1},
    }
    assert event.keys() == members
    text = json.dumps(event | {"ofANewerVersion": 1})
    assert as_contract(spooled.decode(text)) == UsageEvent.model_validate_json(text)
