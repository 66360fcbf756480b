"""The dispatcher: events signed, delivered and finished a second, and what receivers that hang cost the others."""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy import Connection, func, select

from domain.sealing import webhook_context
from domain.sources import EventBatch
from infra.bench import servers
from infra.local import postgres
from runtime import clock
from runtime.database import engines
from runtime.database.engines import Database
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.config import ConfigChange, ConfigKind, SealedSecret, WebhookRecord
from schemas.usage import Outcome, Producer, Tokens, UsageEvent, UsageSource
from tollgate import migrations
from webhooks.app import Dispatcher
from webhooks.store.tables import DELIVERY, PENDING

LABS = 10
EVENTS = {100: 100_000, 1: 5_000}
"""Batch size to how many events."""

RECEIVERS, HANGING = 100, 10
EVENTS_EACH, EACH_BATCH, ROUNDS = 250, 5, 5
WITHIN_S = 120
_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
_VAULT = Vault(bytes(32))


def bench(folder: Path) -> int:
    """Measure on both engines; print the figures. Gives 1 where an event did not arrive exactly once."""
    folder.chmod(0o711)  # PostgreSQL runs as another user where we are root
    with _receiver() as url, postgres.running(folder / "postgres") as server:
        pinned = os.sched_getaffinity(0)
        if len(pinned) > 1:
            os.sched_setaffinity(0, {servers.GATEWAY_CORE})
        try:
            wrong = [
                _engine(name, where, folder, url) for name, where in (("SQLite", None), ("PostgreSQL", server.url))
            ]
        finally:
            os.sched_setaffinity(0, pinned)
    return int(any(wrong))


def _engine(name: str, where: str | None, folder: Path, url: str) -> bool:
    def run(what: Any, *arguments: Any) -> Any:
        return _with_database(where, folder, lambda opened: uvloop.run(what(opened, url, *arguments)))

    wrong = False
    for size, count in EVENTS.items():
        took_s, cpu_s, arrived = run(_throughput, size, count)
        print(
            f"{name}, batches of {size}: {count / took_s:,.0f} events/s signed, delivered and finished, "
            f"{count / size / took_s:,.0f} deliveries/s, {cpu_s / count * 1e6:.0f} us of CPU an event",
            flush=True,
        )
        wrong |= _is_wrong(arrived, count)
    rates: dict[int, list[float]] = {0: [], HANGING: []}
    for hanging in [0, HANGING] * ROUNDS:
        rate, arrived = run(_fairness, hanging)
        rates[hanging].append(rate)
        wrong |= _is_wrong(arrived, (RECEIVERS - HANGING) * EVENTS_EACH)
    alone, beside = (statistics.median(found) for found in rates.values())
    print(
        f"{name}, {RECEIVERS - HANGING} receivers, batches of {EACH_BATCH}: {alone:,.0f} events/s alone, {beside:,.0f} "
        f"beside {HANGING} that hang ({beside / alone - 1:+.1%}; medians of {ROUNDS} rounds in turn)",
        flush=True,
    )
    return wrong


def _is_wrong(arrived: int, count: int) -> bool:
    if arrived != count:
        print(f"bench: WRONG: {arrived:,} events arrived, {count:,} were taken in")
    return arrived != count


async def _throughput(opened: Database, url: str, size: int, count: int) -> tuple[float, float, int]:
    """Take in and deliver at once; return the seconds, the CPU seconds and how many events arrived."""
    labs = [f"lab-{number}" for number in range(LABS)]
    source = _Source([_event(number, labs[number % LABS]) for number in range(count)])
    dispatcher = _dispatcher(opened, size, dict.fromkeys(labs, f"{url}/take"))
    began, cpu = time.perf_counter(), time.process_time()
    tasks = [asyncio.create_task(dispatcher.follow(source)), asyncio.create_task(dispatcher.run())]
    await _until(tasks, opened, lambda connection: _has_all(connection, count) and not _waits(connection))
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    await _ended(dispatcher, tasks)
    return took_s, cpu_s, _taken(url)


async def _fairness(opened: Database, url: str, hanging: int) -> tuple[float, int]:
    """Take in for all, then deliver; return the events/s of the receivers that do not hang, and how many arrived."""
    good = [f"lab-{number}" for number in range(RECEIVERS - HANGING)]
    bad = [f"stuck-{number}" for number in range(hanging)]
    urls = dict.fromkeys(good, f"{url}/take") | dict.fromkeys(bad, f"{url}/hang")
    labs = good + bad
    # A delivery's events lie together, so that with any number of labs the same deliveries are cut for each.
    count = EVENTS_EACH * len(labs)
    source = _Source([_event(number, labs[number // EACH_BATCH % len(labs)]) for number in range(count)])
    dispatcher = _dispatcher(opened, EACH_BATCH, urls)
    follow = asyncio.create_task(dispatcher.follow(source))
    await _until([follow], opened, lambda connection: _has_all(connection, count))
    began = time.perf_counter()
    tasks = [follow, asyncio.create_task(dispatcher.run())]
    await _until(tasks, opened, lambda connection: not _waits(connection, "lab-", "lab."))
    took_s = time.perf_counter() - began
    await _ended(dispatcher, tasks)
    return len(good) * EVENTS_EACH / took_s, _taken(url)


class _Source:
    """A partition whose events are all there."""

    topic = "usage.events.v1"
    index = 0
    lane = "lane"
    first_offset = 1

    def __init__(self, events: Sequence[UsageEvent]) -> None:
        self.events = tuple(events)

    async def read(self, offset: int, limit: int) -> EventBatch:
        events = self.events[offset - 1 : offset - 1 + limit]
        return EventBatch(self.topic, self.index, self.lane, offset, offset + len(events), events)

    async def wait(self, offset: int, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s if offset > len(self.events) else 0)


def _dispatcher(opened: Database, size: int, urls: dict[str, str]) -> Dispatcher:
    settings = Settings(webhook_batch_size=size, webhook_linger_ms=100, allow_private_receivers=True)
    made = Dispatcher(opened, _VAULT, clock.steady(), settings)
    for version, (lab, url) in enumerate(urls.items(), 1):
        sealed = SealedSecret(sealed=_VAULT.seal(_SECRET, context=webhook_context(lab)))
        record = WebhookRecord(workspace_id=lab, url=url, enabled=True, secrets=(sealed,))
        made.apply(ConfigChange(version=version, kind=ConfigKind.WEBHOOK, id=lab, record=record))
    return made


async def _until(tasks: Sequence[asyncio.Task[None]], opened: Database, holds: Any) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await opened.read(holds):
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)


async def _ended(dispatcher: Dispatcher, tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await dispatcher.close()


def _has_all(connection: Connection, count: int) -> bool:
    return bool(connection.execute(select(func.sum(DELIVERY.c.event_count))).scalar_one() == count)


def _waits(connection: Connection, first: str = "", last: str = "~") -> bool:
    query = select(DELIVERY.c.id).where(PENDING, DELIVERY.c.workspace_id.between(first, last)).limit(1)
    return connection.execute(query).first() is not None


def _with_database(where: str | None, folder: Path, work: Any) -> Any:
    """Hand `work` a fresh database, and remove it after."""
    if where is None:
        with tempfile.TemporaryDirectory(dir=folder) as inner, engines.sqlite(Path(inner) / "bench.db") as opened:
            migrations.upgrade(opened)
            return work(opened)
    with engines.postgres(where) as opened:
        migrations.upgrade(opened)
        try:
            return work(opened)
        finally:
            opened.write_now(lambda connection: connection.exec_driver_sql("DROP SCHEMA public CASCADE"))
            opened.write_now(lambda connection: connection.exec_driver_sql("CREATE SCHEMA public"))


def _event(number: int, workspace_id: str) -> UsageEvent:
    return UsageEvent(
        idempotency_key=f"01BENCH{number:019}",
        request_id=f"00000000-0000-4000-8000-{number:012}",
        timestamp=datetime.now(UTC),
        workspace_id=workspace_id,
        group_id="group",
        charged_groups=("group",),
        external_entity_id="customer",
        api_key_prefix="sky_abcdefghijkl",
        model_slug="bench/model",
        request_metadata={"team": "a"},
        tokens=Tokens(input_tokens=12, output_tokens=34),
        usage_source=UsageSource.PROVIDER,
        outcome=Outcome.COMPLETE,
        stream=False,
        latency_ms=12,
        first_byte_ms=3,
        producer=Producer(instance="bench", sequence=number + 1),
    )


class _Receiver(asyncio.Protocol):
    """A lab's server that only notes which events came; `/hang` never answers, `/taken` tells them and forgets."""

    def __init__(self, came: list[bytes]) -> None:
        self._came = came
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            begin = end + 4
            if len(self._buffer) < begin + length:
                return
            body, self._buffer = self._buffer[begin : begin + length], self._buffer[begin + length :]
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        said = b""
        if path == b"/hang":
            return
        if path == b"/taken":
            said = f"{len(self._came)} {len(set(self._came))}".encode()
            self._came.clear()
        else:
            self._came += [part[:26] for part in body.split(b'"idempotencyKey":"')[1:]]
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)


async def _receive() -> None:
    came: list[bytes] = []
    served = await asyncio.get_running_loop().create_server(lambda: _Receiver(came), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{served.sockets[0].getsockname()[1]}", flush=True)
    await served.serve_forever()


@contextlib.contextmanager
def _receiver() -> Iterator[str]:
    """Run the receiver on the other core; return its URL."""
    words = [sys.executable, "-m", "infra.bench.webhooks", "--receive"]
    process = subprocess.Popen(servers.pinned(servers.LOAD_CORE, words), stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.terminate()
        process.wait(servers.STOP_S)


def _taken(url: str) -> int:
    """Return how many events arrived since the last call; -1 where one came twice."""
    with urllib.request.urlopen(f"{url}/taken", timeout=10) as answer:
        total, distinct = map(int, answer.read().split())
    return total if total == distinct else -1


def main() -> int:
    """Run the bench, or be its receiver."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.webhooks", description=__doc__)
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().receive:
        uvloop.run(_receive())
        return 0
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        return bench(Path(name))


if __name__ == "__main__":
    sys.exit(main())
