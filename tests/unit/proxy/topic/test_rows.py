"""A spool's row as the publisher sends it: what its bytes say, whichever way they were read (contract 4)."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import usage_event
from proxy.limits.estimate import TokenCounts
from proxy.spool.spreads import Spreads
from proxy.topic import rows
from proxy.topic.rows import Charged
from runtime import ids
from runtime.kafka.writer import partition_of
from schemas.usage import Outcome, RouteName, Tokens, UsageDraft, UsageSource
from tests.unit.proxy import kit

PARTITIONS = 7
NO_FOLDER = Path("nowhere")
PRODUCER = b',"producer":{"instance":"one","sequence":5}}'
texts = st.text(max_size=12)


def written(route: bytes, at: datetime = kit.NOW, **facts: Any) -> bytes:
    """Return an event as the proxy spools it."""
    given_facts: dict[str, Any] = {
        "idempotency_key": ids.mint(at),
        "request_id": ids.uuid7(at),
        "admitted_at": at,
        "route": route,
        "api_key_prefix": "sky_abcdefghijkl",
        "request_metadata": None,
        "stream": False,
    }
    begun = usage_event.begun(**(given_facts | facts))
    return (
        usage_event.ended(begun, TokenCounts(1, 2), UsageSource.PROVIDER, Outcome.COMPLETE, (3, None))[:-1] + PRODUCER
    )


def route(groups: tuple[str, ...], entity: str = "customer", slug: str = "lab/model") -> bytes:
    return usage_event.of_route(
        workspace_id="ws",
        group_id=groups[0],
        charged_groups=groups,
        parent_groups=(),
        external_entity_id=entity,
        slug=slug,
        name=RouteName.CHAT_COMPLETIONS,
    )


def check(row: rows.Row, body: bytes) -> None:
    event = json.loads(body)
    sequence, day, whose, (key, value, headers), size_bytes = row
    assert (sequence, value, size_bytes) == (5, body, len(body))
    assert day == event["timestamp"][:10]
    root = event["chargedGroups"][-1].encode()
    assert whose == Charged(tuple(event["chargedGroups"]), event["modelSlug"], root, partition_of(root, PARTITIONS))
    assert key == root
    assert dict(headers) == {
        "ce_id": event["idempotencyKey"].encode(),
        "ce_time": event["timestamp"].encode(),
        "ce_type": b"tollgate.usage.events.v1",
        "ce_source": b"one",
        "ce_specversion": b"1.0",
    }


@given(
    groups=st.lists(texts, min_size=1, max_size=4).map(tuple),
    entity=texts | st.sampled_from(['","apiKeyPrefix":', '","timestamp":"']),
    slug=texts,
    metadata=st.none() | st.dictionaries(texts, texts, max_size=2),
    at=st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 1, 1)),  # noqa: DTZ001 - zone below
)
def test_a_row_says_what_its_event_says(
    groups: tuple[str, ...], entity: str, slug: str, metadata: dict[str, str] | None, at: datetime
) -> None:
    form = rows.former("one", PARTITIONS, Spreads(NO_FOLDER))
    for _ in range(2):  # worked out, then known
        body = written(route(groups, entity, slug), at.replace(tzinfo=UTC), request_metadata=metadata)
        check(form(5, body), body)


@pytest.mark.parametrize("key", ["short", "0" * 26])
def test_an_event_that_was_written_otherwise_is_decoded(key: str) -> None:
    draft = UsageDraft(
        idempotency_key=key,
        request_id=ids.uuid7(kit.NOW),
        timestamp=kit.NOW,
        workspace_id="ws",
        group_id="own",
        charged_groups=("own", "root"),
        external_entity_id="customer",
        api_key_prefix="sky_abcdefghijkl",
        model_slug="lab/model",
        tokens=Tokens(input_tokens=1, output_tokens=2),
        usage_source=UsageSource.PROVIDER,
        outcome=Outcome.GATEWAY_INTERRUPTED,
        stream=False,
        latency_ms=None,
        first_byte_ms=None,
    )
    form = rows.former("one", PARTITIONS, Spreads(NO_FOLDER))
    for _ in range(2):
        body = draft.model_dump_json().encode()[:-1] + PRODUCER
        check(form(5, body), body)


def test_no_more_routes_are_known_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_MOST_ROUTES", 3)
    form = rows.former("one", PARTITIONS, Spreads(NO_FOLDER))
    for number in [*range(10), 0]:
        body = written(route((f"group-{number}",)))
        check(form(5, body), body)


def test_rows_of_a_busy_tree_lie_over_its_lanes_from_their_sequence_on(tmp_path: Path) -> None:
    spreads = Spreads(tmp_path)
    spreads.spread("root", 3, begin=10, oldest=1)
    form = rows.former("one", PARTITIONS, spreads)
    body = written(route(("child", "root")))
    home = partition_of(b"root", PARTITIONS)
    found = [form(sequence, body)[2].partition for sequence in range(8, 14)]
    assert found == [home, home, *((home + sequence % 3) % PARTITIONS for sequence in range(10, 14))]
