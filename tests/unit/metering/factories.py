"""Builds usage events and batches for metering's tests; every value can be named."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ulid import ULID

from domain.sources import EventBatch
from schemas.config import ConfigChange, ConfigKind, GroupRecord
from schemas.limits import LimitEnforcement, LimitType, ModelConfig, UsageLimit, UsageLimitUnit
from schemas.usage import Kind, Outcome, Producer, Tokens, UsageEvent, UsageSource

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
SLUG = "org/model"
SPOOL = "spool-a"
LANE = f"{SPOOL}/0"


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


def key(number: int, timestamp: datetime = NOON) -> str:
    """Return the ULID that is minted at `timestamp` as the `number`-th."""
    return str(ULID.from_int((int(timestamp.timestamp() * 1000) << 80) + number))


def event(sequence: int, *, number: int | None = None, instance: str = "proxy-a", **fields: Any) -> UsageEvent:
    """Make a usage event; `number` tells keys apart and is the sequence unless given."""
    timestamp = fields.pop("timestamp", NOON)
    group_id = fields.pop("group_id", "group-a")
    prompt, completion, cached = fields.pop("tokens", (10, 5, 2))
    given: dict[str, Any] = {
        "idempotency_key": key(number if number is not None else sequence, timestamp),
        "request_id": f"00000000-0000-4000-8000-{sequence:012d}",
        "timestamp": timestamp,
        "workspace_id": "workspace-a",
        "group_id": group_id,
        "charged_groups": (group_id,),
        "external_entity_id": f"customer of {group_id}",
        "api_key_prefix": "sky_abcdefghijkl",
        "model_slug": SLUG,
        "tokens": Tokens(input_tokens=prompt, output_tokens=completion, cached_input_tokens=cached),
        "usage_source": UsageSource.PROVIDER,
        "outcome": Outcome.COMPLETE,
        "stream": False,
        "latency_ms": 120,
        "first_byte_ms": 40,
        "producer": Producer(instance=instance, sequence=sequence),
    }
    return UsageEvent(**given | fields)


def correction(sequence: int, *, tokens: tuple[int, int, int] = (-3, -1, 0), **fields: Any) -> UsageEvent:
    """Make a correction: signed counts, charged to nobody."""
    given: dict[str, Any] = {
        "kind": Kind.CORRECTION,
        "charged_groups": (),
        "corrects": key(1),
        "reason": "counted the cache twice",
        "latency_ms": None,
        "first_byte_ms": None,
    }
    return event(sequence, tokens=tokens, **given | fields)


def batch(
    events: Sequence[UsageEvent],
    first_offset: int = 1,
    *,
    topic: str = SPOOL,
    partition: int = 0,
    lane: str | None = None,
    gap: int = 0,
) -> EventBatch:
    """Lay `events` on consecutive offsets; `gap` offsets without an event follow them."""
    lane = f"{topic}/{partition}" if lane is None else lane
    return EventBatch(topic, partition, lane, first_offset, first_offset + len(events) + gap, tuple(events))


def group(
    id_: str,
    *ancestors: str,
    mode: LimitEnforcement = LimitEnforcement.INDEPENDENT,
    requests: int | None = None,
    tokens: int | None = None,
) -> GroupRecord:
    """Make a group that lists SLUG with the given day limits; `ancestors` begin with the parent."""
    thresholds = ((LimitType.REQUEST, requests), (LimitType.TOKEN, tokens))
    limits = tuple(
        UsageLimit(type=type_, unit=UsageLimitUnit.DAY, threshold=threshold)
        for type_, threshold in thresholds
        if threshold is not None
    )
    return GroupRecord(
        id=id_,
        workspace_id="workspace-a",
        external_entity_id=f"customer of {id_}",
        parent_group_id=ancestors[0] if ancestors else None,
        ancestor_ids=ancestors,
        limit_enforcement=mode,
        models=(ModelConfig(slug=SLUG, usage_limits=limits),),
    )


def change(version: int, id_: str, record: GroupRecord | None) -> ConfigChange:
    """Make a change of the configuration feed."""
    return ConfigChange(version=version, kind=ConfigKind.GROUP, id=id_, record=record)
