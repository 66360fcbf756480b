"""The stream: what metering counts a second, and how long feedback takes."""

import asyncio
import base64
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import uvloop
from sqlalchemy import Connection, func, select

from infra.bench import servers
from infra.local import kafka as local_kafka
from infra.local import parts, postgres
from metering.store import positions
from metering.store.events import USAGE_EVENT
from proxy.limits.counters import Lane, LanePart
from proxy.limits.days import DayCounters
from proxy.spool import writer as spool_writer
from proxy.topic.decisions import DecisionsFeed
from proxy.topic.publisher import SpoolPublisher
from runtime import clock, ids
from runtime.database import engines
from runtime.database.engines import Database
from runtime.kafka import feed as kafka_feed
from runtime.kafka.writer import Kafka, Writer, partition_of
from runtime.settings import SpoolSync
from schemas.decisions import HeardDecision, Spread, Whole
from schemas.topics import USAGE_EVENTS
from schemas.usage import Outcome, Tokens, UsageDraft, UsageSource

PARTITIONS = 4
GROUPS, MANY_GROUPS = 50, 10_000
COUNTED = 60_000
ROUNDS = 2
FEEDBACK_PER_S = 2_000
FEEDBACK_S = 10
WITHIN_S = 120
_TURN_S = 0.005
_ids = ids.Minter()
_TOLLGATE = str(Path(sys.executable).with_name("tollgate"))


def bench(folder: Path) -> int:
    """Measure on services of its own; print the figures. Gives 1 where something was not counted exactly once."""
    with local_kafka.running(folder / "kafka") as broker, postgres.running(folder / "postgres") as server:
        master_key = base64.b64encode(os.urandom(32)).decode()
        settings = parts.settings(broker.bootstrap, server.url, master_key, PARTITIONS)
        environment = os.environ | {f"TOLLGATE_{name.upper()}": value for name, value in settings.items()}
        subprocess.run([_TOLLGATE, "migrate", "--data", str(folder / "migrate")], env=environment, check=True)
        with (
            engines.postgres(server.url) as opened,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,  # as a proxy runs
        ):
            return runner.run(_bench(folder, Kafka(broker.bootstrap), opened, environment))


async def _bench(folder: Path, where: Kafka, opened: Database, environment: dict[str, str]) -> int:
    total = 0
    with _serving("control", folder, environment):  # because metering waits until the configuration is told whole
        few: list[tuple[float, float]] = []
        many: list[tuple[float, float]] = []
        for number in range(ROUNDS):
            for rates, groups in ((few, GROUPS), (many, MANY_GROUPS)):
                await _published(folder / f"{number}-{groups}", where, groups)
                with _serving("metering", folder, environment) as process:
                    rates.append(await _count(opened, process, total, COUNTED))
                total += COUNTED
        rate, cpu_us = max(few)
        print(f"metering through Faust: {rate:,.0f} events/s")
        print(f"metering: {cpu_us:.0f} us of CPU an event, {1e6 / cpu_us:,.0f} events/s for each core")
        print(f"metering, {MANY_GROUPS:,} groups to {GROUPS}, events/s: {max(many)[0] / rate:.2f}")
    with _serving("control", folder, environment), _serving("metering", folder, environment):
        delays = await _feedback(folder / "two", where)
        total += FEEDBACK_PER_S * FEEDBACK_S
        await _until_counted(opened, total)
        counted = await opened.read(_rows)
    p50, p99 = statistics.quantiles(delays, n=100)[49], statistics.quantiles(delays, n=100)[98]
    print(
        f"feedback at {FEEDBACK_PER_S:,} events/s: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms "
        "(event spooled, to the decision that counts it at a proxy; far from every limit a counter waits up to 30 s)"
    )
    print(f"ledger {counted:,} events of {total:,} spooled")
    return 0 if counted == total else 1


async def _published(folder: Path, where: Kafka, groups: int) -> None:
    async with _publishing(folder, where) as (made, publisher, _):
        await _put(made, COUNTED, groups)
        runs = asyncio.create_task(publisher.run())
        await publisher.drain(WITHIN_S)
        await _cancelled(runs)


async def _count(opened: Database, process: subprocess.Popen[bytes], already: int, further: int) -> tuple[float, float]:
    """Wait until so many further are counted; return events/s and CPU an event, from the first batch on."""
    async with asyncio.timeout(WITHIN_S):
        while (first := await opened.read(_passed)) == already:  # noqa: ASYNC110 (another process tells nobody)
            await asyncio.sleep(0.005)
    began, cpu = time.monotonic(), _cpu_s(process.pid)
    counted = await _until_counted(opened, already + further) - first
    return counted / (time.monotonic() - began), (_cpu_s(process.pid) - cpu) / counted * 1e6


async def _feedback(folder: Path, where: Kafka) -> Sequence[float]:
    """Spool events evenly; return for each how long it took until a decision counted it."""
    put_at: dict[int, float] = {}
    seen: dict[int, float] = {}
    groups: dict[str, list[int]] = {}
    async with _publishing(folder, where) as (made, publisher, counters):

        def decided(told: Sequence[HeardDecision | Whole | Spread]) -> None:
            now = time.monotonic()
            for one in told:
                if isinstance(one, Whole):
                    counters.take_whole(one.lane, one.at)
                if not isinstance(one, HeardDecision):
                    continue
                part = LanePart(one.version, one.at, one.requests, one.tokens)
                counters.take_part(one.group_id, one.model_slug, date.fromisoformat(one.period), one.lane, part)
                waiting = groups.get(one.group_id, [])
                while waiting and counters.offsets.get(waiting[0], one.at) < one.at:
                    seen.setdefault(waiting.pop(0), now)

        feed = DecisionsFeed(where, decided, clock.steady())
        runs = [asyncio.create_task(feed.run()), asyncio.create_task(publisher.run())]
        await feed.caught_up()
        began, total, put = time.monotonic(), FEEDBACK_PER_S * FEEDBACK_S, 0
        while put < total:
            due = min(total, int((time.monotonic() - began) * FEEDBACK_PER_S))
            drafts = [_draft(number) for number in range(put, due)]  # what ended in one turn goes to disk together
            sequences = await asyncio.gather(*[made.put(draft) for draft in drafts])
            now, put = time.monotonic(), due
            for sequence, draft in zip(sequences, drafts, strict=True):
                put_at[sequence] = now
                groups.setdefault(draft.group_id, []).append(sequence)
            await asyncio.sleep(_TURN_S)
        async with asyncio.timeout(WITHIN_S):
            while len(seen) < len(put_at):  # noqa: ASYNC110 (bounded)
                await asyncio.sleep(0.05)
        for run in runs:
            await _cancelled(run)
    return [seen[sequence] - moment for sequence, moment in put_at.items()]


class _Counters(DayCounters):
    """Those of a proxy; keeps where its rows are."""

    def __init__(self, instance: str, partitions: int) -> None:
        super().__init__(instance)
        self.offsets: dict[int, int] = {}
        self.use_lanes(range(partitions), lambda root, *_: partition_of(root.encode(), partitions))

    def acknowledge(self, lane: Lane, instance: str, placed: Iterable[tuple[int, int]]) -> None:
        pairs = list(placed)
        self.offsets |= pairs
        super().acknowledge(lane, instance, pairs)


@contextlib.asynccontextmanager
async def _publishing(
    folder: Path, where: Kafka
) -> AsyncIterator[tuple[spool_writer.Spool, SpoolPublisher, _Counters]]:
    made, older = spool_writer.open_folder(folder, sync=SpoolSync.NORMAL, max_bytes=2**34)
    writer = Writer(where, "the bench")
    counters = _Counters(made.instance, await writer.partitions(USAGE_EVENTS))
    try:
        yield (
            made,
            SpoolPublisher(made, older, {}, writer, counters, partial(kafka_feed.ends, where, USAGE_EVENTS)),
            counters,
        )
    finally:
        await writer.close()
        made.close()


async def _put(made: spool_writer.Spool, count: int, groups: int) -> None:
    for start in range(0, count, 500):
        await asyncio.gather(*[made.put(_draft(number, groups)) for number in range(start, start + 500)])


def _draft(number: int, groups: int = GROUPS) -> UsageDraft:
    """Return an event of one of the groups: the first half of them alone, the others below two ancestors."""
    group = number % groups
    tree = group // 5
    charged = (f"group-{group}",) if group < groups // 2 else (f"group-{group}", f"middle-{tree}", f"root-{tree}")
    now = datetime.now(UTC)
    return UsageDraft(
        idempotency_key=_ids.mint(now),
        request_id=_ids.uuid7(now),
        timestamp=now,
        workspace_id="bench",
        group_id=f"group-{group}",
        charged_groups=charged,
        external_entity_id=f"customer-{group}",
        api_key_prefix="sky_abcdefghijkl",
        model_slug="bench/model",
        tokens=Tokens(input_tokens=12, output_tokens=34),
        usage_source=UsageSource.PROVIDER,
        outcome=Outcome.COMPLETE,
        stream=False,
        latency_ms=12,
        first_byte_ms=3,
    )


@contextlib.contextmanager
def _serving(role: str, folder: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    words = [_TOLLGATE, "serve", role, "--data", str(folder / role), "--ops-port", "0"]
    words += ["--port", "0"] if role in parts.PUBLIC else []
    with (folder / f"{role}.log").open("wb") as log:
        process = subprocess.Popen(
            servers.pinned(servers.GATEWAY_CORE, words), env=environment, stdout=subprocess.DEVNULL, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(servers.STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_counted(opened: Database, total: int) -> int:
    """Wait until metering has passed so many, or goes on no more; return how many."""
    counted, since = -1, time.monotonic()
    while counted < total and time.monotonic() - since < 20:
        before, counted = counted, await opened.read(_passed)
        since = time.monotonic() if counted != before else since
        await asyncio.sleep(0.02)
    return counted


def _passed(connection: Connection) -> int:
    """Return how many events metering has passed: it is asked often, and to count the ledger's rows takes long."""
    return sum(row.next_offset for row in positions.every(connection).values())


def _rows(connection: Connection) -> int:
    """Return how many events the ledger has."""
    rows: int = connection.execute(select(func.count()).select_from(USAGE_EVENT)).scalar_one()
    return rows


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, itertools.islice(fields, 11, 13))) / os.sysconf("SC_CLK_TCK")


async def _cancelled(run: asyncio.Task[None]) -> None:
    run.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await run
