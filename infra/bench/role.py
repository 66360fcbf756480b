"""Runs `tollgate serve proxy` over a Kafka of its own, whose configuration the bench writes itself."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from infra.bench import servers
from infra.cluster import tollgate
from infra.local import parts, process
from runtime.config import records as config_records
from runtime.kafka import topics
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from runtime.settings import Settings
from schemas.config import (
    ConfigChange,
    ConfigKind,
    ConfigRecord,
    EndpointRecord,
    GroupRecord,
    KeyRecord,
    WorkspaceRecord,
    WorkspaceState,
)
from schemas.limits import (
    ANY_SLUG,
    LimitEnforcement,
    LimitType,
    ModelConfig,
    RateLimit,
    RateLimitUnit,
    UsageLimit,
    UsageLimitUnit,
)
from schemas.targets import Provider, Target
from schemas.topics import GATEWAY_CONFIG

MAIN = 4
"""How many limits hold for all keys by number: two of days, two of rates."""
STAR, MONTH, BOTH = "4 and *", "4 and MONTH", "4 and both"
"""Beside those of MAIN: the same four over all slugs, two of months, and both."""
LIMITS: tuple[int | str, ...] = (0, 2, MAIN, 10, STAR, MONTH, BOTH)
"""By how many limits or by which name: groups with a key each."""
_PAGE = 5000
_READY_S = 600
"""A million keys take two minutes on two busy cores."""
_WRITE_S = 120.0
_WORKSPACE = "ws"


@dataclass(frozen=True)
class Role:
    """A running proxy."""

    subject: servers.Subject
    ops_url: str
    keys: dict[int | str, str]
    """By the members of `LIMITS`."""

    def published(self) -> int:
        """Return how many usage events Kafka has from it."""
        for line in httpx.get(f"{self.ops_url}/metrics", trust_env=False).text.splitlines():
            if line.startswith("tollgate_published_events_total "):
                return int(float(line.split()[1]))
        raise servers.BenchError("/metrics does not tell of published events")


@contextlib.contextmanager
def proxy(
    folder: Path, bootstrap: str, plain: servers.Upstream, streams: servers.Streaming, key_count: int
) -> Iterator[Role]:
    """Run a proxy in front of the upstreams that knows `key_count` keys by number, and one for each of `LIMITS`."""
    folder.mkdir()
    prefix = f"bench-{secrets.token_hex(4)}."
    shared = parts.settings(bootstrap, "", base64.b64encode(bytes(32)).decode()) | {"kafka_topic_prefix": prefix}
    del shared["database_url"]
    upstreams = {servers.SLUG: plain.port, servers.PACED: streams.paced_port, servers.BURST: streams.burst_port}
    keys = {name: _key(10**9 + number) for number, name in enumerate(LIMITS)}
    asyncio.run(_configure(Kafka(bootstrap, prefix), upstreams, keys, key_count))
    part = parts.Part("proxy-1", "proxy", folder / "data")
    announcement = folder / "announcement"
    environment = {f"TOLLGATE_{name.upper()}": value for name, value in shared.items()}
    running = process.start(
        "proxy-1",
        servers.pinned(servers.GATEWAY_CORE, [tollgate(), *part.words()]),
        folder / "proxy.log",
        announcement=announcement,
        environment=os.environ | environment | {"TOLLGATE_ALLOW_PRIVATE_UPSTREAMS": "true"},
    )
    try:
        running.until(lambda: announcement.read_text(encoding="utf-8").endswith("\n"), _READY_S)
        said = json.loads(announcement.read_text(encoding="utf-8"))
        running.until(lambda: parts.unready(said["ops_url"]) is None, _READY_S)
        port = int(said["url"].rpartition(":")[2])
        yield Role(
            servers.Subject("serve proxy", running.popen.pid, port, port, port, keys[MAIN]), said["ops_url"], keys
        )
    finally:
        running.stop(servers.STOP_S)


async def _configure(where: Kafka, upstreams: dict[str, int], keys: dict[int | str, str], key_count: int) -> None:
    settings = Settings(kafka_partitions=4, kafka_replication=1, kafka_min_insync_replicas=1)
    problems = await topics.ensure(where, topics.plans(settings), create=True)
    if problems:
        raise servers.BenchError(topics.told(problems))
    now = datetime.now(UTC)
    writer = Writer(where, "the bench")
    changes = [*_things(upstreams), *(_of_key(f"g-{name}-0", key) for name, key in keys.items())]
    try:
        await writer.write(GATEWAY_CONFIG, [config_records.of(_change(*each), now) for each in changes], _WRITE_S)
        for first in range(0, key_count, _PAGE):
            page = range(first, min(first + _PAGE, key_count))
            numbered = [_of_key(f"g-{MAIN}-0", _key(number)) for number in page]
            await writer.write(GATEWAY_CONFIG, [config_records.of(_change(*each), now) for each in numbered], _WRITE_S)
        beat: KafkaRecord = config_records.heartbeat(1, now)
        await writer.write(GATEWAY_CONFIG, [beat], _WRITE_S)
    finally:
        await writer.close()


def _things(upstreams: dict[str, int]) -> Iterator[tuple[ConfigKind, str, ConfigRecord]]:
    workspace = WorkspaceRecord(id=_WORKSPACE, name="bench", state=WorkspaceState.ACTIVE, operator_credential=False)
    yield ConfigKind.WORKSPACE, _WORKSPACE, workspace
    for slug, port in upstreams.items():
        target = Target(
            provider=Provider.OPENAI_COMPATIBLE,
            base_url=f"http://127.0.0.1:{port}/v1",
            target_model="upstream-model",
        )
        made = datetime.now(UTC)
        endpoint = EndpointRecord(id=slug, workspace_id=_WORKSPACE, slug=slug, target=target, created_at=made)
        yield ConfigKind.ENDPOINT, slug, endpoint
    for limits in LIMITS:
        yield from _chain(limits, tuple(upstreams))


def _chain(limits: int | str, slugs: Sequence[str]) -> Iterator[tuple[ConfigKind, str, ConfigRecord]]:
    """Return a group for which these limits hold, and its ancestors: by number, four at most are a group's own."""
    count = limits if isinstance(limits, int) else MAIN
    levels = max(1, -(-count // 4))
    names = [f"g-{limits}-{level}" for level in range(levels)]
    for level, name in enumerate(names):
        own, months = min(4, count - 4 * level), limits in (MONTH, BOTH)
        bounded = (*slugs, ANY_SLUG) if limits in (STAR, BOTH) else slugs
        ancestors = tuple(names[level + 1 :])
        group = GroupRecord(
            id=name,
            workspace_id=_WORKSPACE,
            external_entity_id=name,
            parent_group_id=ancestors[0] if ancestors else None,
            ancestor_ids=ancestors,
            limit_enforcement=LimitEnforcement.CASCADING,
            models=tuple(_limited(slug, own, months=months) for slug in bounded),
        )
        yield ConfigKind.GROUP, name, group


def _limited(slug: str, count: int, *, months: bool) -> ModelConfig:
    """Return a model with so many limits that nobody reaches: first of days, then rates; of months beside them."""
    types = (LimitType.REQUEST, LimitType.TOKEN)
    usage = [_usage(each, UsageLimitUnit.DAY) for each in types[:count]]
    by_month = [_usage(each, UsageLimitUnit.MONTH) for each in types if months]
    rates = [RateLimit(type=each, unit=RateLimitUnit.MINUTE, threshold=servers.ENOUGH) for each in types]
    return ModelConfig(slug=slug, usage_limits=(*usage, *by_month), rate_limits=tuple(rates[: max(0, count - 2)]))


def _usage(type_: LimitType, unit: UsageLimitUnit) -> UsageLimit:
    return UsageLimit(type=type_, unit=unit, threshold=servers.ENOUGH)


def _of_key(group: str, key: str) -> tuple[ConfigKind, str, ConfigRecord]:
    digest = hashlib.sha256(key.encode()).hexdigest()
    prefix = key[:16]
    return ConfigKind.KEY, prefix, KeyRecord(prefix=prefix, workspace_id=_WORKSPACE, group_id=group, sha256=digest)


def _change(kind: ConfigKind, id_: str, record: ConfigRecord) -> ConfigChange:
    return ConfigChange(version=1, kind=kind, id=id_, record=record)


def _key(number: int) -> str:
    """Return a key by its number, as post.lua does."""
    return f"sky_{number:012d}.{number:032d}"
