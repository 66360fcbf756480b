"""Cutting loses nothing, doubles nothing and keeps each workspace's order, for any stretch of events."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.webhooks import kit
from webhooks.core import batching
from webhooks.core.batching import Batching, CutNow

places = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=60)
sizes = st.integers(1, 100)


@given(places, sizes)
def test_cut_keeps_every_key_once_in_its_workspaces_order(stretch: list[tuple[str, int]], size: int) -> None:
    events = [kit.event(number, workspace_id) for workspace_id, number in stretch]
    deliveries = batching.cut(events, size)
    for delivery in deliveries:
        assert 1 <= len(delivery) <= size
        assert len({billed.event.workspace_id for billed in delivery}) == 1
    for workspace_id in "abc":
        own = [number for workspace, number in stretch if workspace == workspace_id]
        cut = [
            billed.event.tokens.input_tokens
            for delivery in deliveries
            for billed in delivery
            if billed.event.workspace_id == workspace_id
        ]
        assert cut == list(dict.fromkeys(own))


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_the_body_names_its_events_and_marks_its_corrections(corrections: list[bool]) -> None:
    events = [kit.correction(number) if is_one else kit.event(number) for number, is_one in enumerate(corrections)]
    body = json.loads(batching.freeze(map(batching.bill, events)))
    assert [event["idempotencyKey"] for event in body["data"]["events"]] == [one.idempotency_key for one in events]
    assert [event.get("kind") == "correction" for event in body["data"]["events"]] == corrections
    assert [{"corrects", "reason"} <= event.keys() for event in body["data"]["events"]] == corrections


@given(places.filter(bool), sizes, st.integers(1, 60), st.floats(0, 5), st.floats(0, 5))
def test_nothing_waits_beyond_the_linger_or_for_more_than_it_needs(
    stretch: list[tuple[str, int]], size: int, limit: int, linger_s: float, age_s: float
) -> None:
    events = [kit.event(number, workspace_id) for workspace_id, number in stretch][:limit]
    rule = Batching(size, linger_s, limit)
    verdict = batching.decide(events, age_s, rule)
    if isinstance(verdict, CutNow):
        fullest = max(sum(event.workspace_id == one for event in events) for one in "abc")
        assert age_s >= linger_s or fullest >= size or len(events) >= limit
    else:
        assert 0 < verdict.left_s == linger_s - age_s
        assert verdict.missing >= 1
        favourite = max("abc", key=lambda one: sum(event.workspace_id == one for event in events))
        more = [kit.event(1000 + number, favourite) for number in range(verdict.missing)]
        assert batching.decide([*events, *more], 0, rule) == CutNow()
        assert batching.decide([*events, *more[1:]], age_s, rule) != CutNow()
