"""Cutting, timing and freezing of deliveries (contract 5)."""

import json

from tests.unit.webhooks import kit
from webhooks.core import batching
from webhooks.core.batching import Batching, CutNow, Wait

RULE = Batching(delivery_size=3, linger_s=1, read_limit=5)


def test_a_stretch_is_cut_per_workspace_in_order() -> None:
    events = [kit.event(1, "a"), kit.event(2, "b"), kit.event(3, "a"), kit.event(4, "a"), kit.event(5, "a")]
    cut = batching.cut(events, 3)
    keys = [[billed.event.idempotency_key[-1] for billed in delivery] for delivery in cut]
    assert keys == [
        ["1", "3", "4"],
        ["5"],
        ["2"],
    ]


def test_of_a_key_that_comes_twice_the_first_event_is_taken() -> None:
    first, second = kit.event(1, key="same"), kit.event(2, key="same")
    assert batching.cut([first, second], 3) == [(batching.bill(first),)]
    assert len(batching.cut([first, kit.event(2, "other", key="same")], 3)) == 2


def test_a_short_stretch_waits_until_its_oldest_event_has_lingered() -> None:
    events = [kit.event(1, "a"), kit.event(2, "a"), kit.event(3, "b")]
    assert batching.decide(events, 0.25, RULE) == Wait(0.75, missing=1)
    assert isinstance(batching.decide(events, 0.999, RULE), Wait)
    assert batching.decide(events, 1, RULE) == CutNow()


def test_a_full_delivery_or_a_full_read_is_cut_at_once() -> None:
    full = [kit.event(number, "a") for number in range(3)]
    assert batching.decide(full, 0, RULE) == CutNow()
    spread = [kit.event(number, f"ws-{number}") for number in range(5)]
    assert batching.decide(spread, 0, RULE) == CutNow()
    assert batching.decide(spread[:4], 0, RULE) == Wait(1, missing=1)


def test_the_frozen_body_is_compact_json_in_the_contracts_order() -> None:
    text = batching.freeze([batching.bill(kit.event(7))]).decode()
    assert text == (
        '{"type":"API_BILLING_USAGE","data":{"events":[{"idempotencyKey":"key-000007",'
        '"timestamp":"2026-01-01T00:00:00.000Z","requestId":"request-7","requestMetadata":{"team":"räksmörgås"},'
        '"modelSlug":"lab/model","externalEntityId":"customer","externalCustomerId":"customer",'
        '"apiKeyPrefix":"sky_aaaaaaaaaaaa","tokens":{"inputTokens":7,"outputTokens":14,"cachedInputTokens":1},'
        '"usageSource":"provider","outcome":"complete"}]}}'
    )


def test_only_corrections_carry_their_own_fields() -> None:
    without = kit.event(1).model_copy(update={"request_metadata": None})
    plain, corrected = json.loads(batching.freeze(map(batching.bill, [without, kit.correction(2)])))["data"]["events"]
    assert plain["requestMetadata"] is None
    assert not {"kind", "corrects", "reason"} & plain.keys()
    assert (corrected["kind"], corrected["corrects"], corrected["reason"]) == (
        "correction",
        "key-000001",
        "counted twice",
    )


def test_a_body_is_cut_by_bytes_too_and_an_event_that_is_larger_goes_alone() -> None:
    large = {"note": "x" * 17_000}
    events = [kit.event(number).model_copy(update={"request_metadata": large}) for number in range(1, 9)]
    deliveries = batching.cut(events, 100)
    assert [len(one) for one in deliveries] == [3, 3, 2]
    assert all(len(batching.freeze(one)) <= 64 * 1024 for one in deliveries)
    exactly = len(batching.freeze(map(batching.bill, events[:2])))
    assert [len(one) for one in batching.cut(events[:4], 100, exactly)] == [2, 2]
    assert [len(one) for one in batching.cut(events[:2], 100, exactly - 1)] == [1, 1]
    assert [len(one) for one in batching.cut(events, 100, 10)] == [1] * 8
