"""What grows: the ledger's transactions over many spools, groups and lanes, and what retention leaves on a disk.

On a PostgreSQL of its own, except for the last: that is the embedded default's file. What is compared is measured in
turn, so that a busy machine slows both.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from domain.sources import EventBatch
from infra.local import postgres
from infra.simulate import cutting
from metering.store import day_partitions, retention, transaction
from runtime.database import engines
from runtime.database.engines import Database
from schemas.usage import Producer, UsageEvent
from tollgate import migrations

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
BATCH, ROUNDS = 2000, 5
SPOOLS = 100_000
DISK_EVENTS, DAYS = 100_000, 5
_numbers = iter(range(10**12))


def bench(folder: Path) -> int:
    """Print the figures. Gives 1 where something was not counted."""
    folder.chmod(0o711)  # PostgreSQL runs as another user where we are root
    with postgres.running(folder / "postgres") as server, engines.postgres(server.url) as opened:
        migrations.upgrade(opened)
        opened.write_now(lambda connection: day_partitions.ensure(connection, NOON.date()))
        groups(opened)
        trees(opened)
        spools(opened)
    return disk(folder)


def spools(opened: Database) -> None:
    """Compare a transaction of 10 spools' events in a ledger of few spools with one in a ledger of very many."""
    few = best(lambda number: count(opened, "few", events(BATCH, spools=10), number))
    for number in range(SPOOLS // BATCH):
        count(opened, "many", events(BATCH, spools=BATCH, first=number * BATCH), number)
    later = SPOOLS // BATCH
    many = best(lambda number: count(opened, "many", events(BATCH, spools=10), later + number))
    print(f"a metering transaction with {SPOOLS:,} spools ever, to one with 10: {many / few:.2f}")


def groups(opened: Database) -> None:
    """Compare events of 10,000 groups with events of 50."""
    few, many = [], []
    for number in range(ROUNDS):
        few.append(count(opened, "fifty", events(BATCH, groups=50), number))
        many.append(count(opened, "thousands", events(BATCH, groups=10_000), number))
    print(f"a metering transaction alone, 10,000 groups to 50, events/s: {min(few) / min(many):.2f}")


def trees(opened: Database) -> None:
    """Compare one tree over 4 lanes, counted by two workers, with 50 groups over the same."""
    took = {}
    for groups in (50, 1):
        rounds = []
        for number in range(ROUNDS):
            workers = [threading.Thread(target=lanes, args=(opened, groups, worker, number)) for worker in range(2)]
            began = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            rounds.append(time.perf_counter() - began)
        took[groups] = min(rounds)
    print(f"one tree over 4 lanes, 2 workers, to 50 groups over the same, events/s: {took[50] / took[1]:.2f}")


def lanes(opened: Database, groups: int, worker: int, number: int) -> None:
    """Count a batch in each of a worker's two lanes."""
    for lane in (2 * worker, 2 * worker + 1):
        count(opened, f"tree-{groups}", events(BATCH, groups=groups), number, lane)


def disk(folder: Path) -> int:
    """Count day after day on SQLite, of which one is kept: the file is to hold one day's events, not all."""
    file = folder / "embedded.db"
    sizes = []
    for day in range(DAYS):
        now = NOON + timedelta(days=day)
        with engines.sqlite(file) as opened:
            migrations.upgrade(opened)
            for step in retention.steps(now.date(), 1, ()).values():  # as at midnight: then new events take the space
                while opened.write_now(step) == retention.STEP:
                    pass
            for number in range(DISK_EVENTS // BATCH):
                count(opened, f"day-{day}", events(BATCH, groups=100, at=now), number)
        sizes.append(file.stat().st_size)
    what = f"embedded: bytes on disk after {DAYS} days of {DISK_EVENTS:,} events, of which one is kept"
    print(f"{what}, to those after the first: {sizes[-1] / sizes[0]:.2f}")
    return 0


def events(
    count: int, *, spools: int = 1, groups: int = 50, first: int = 0, at: datetime = NOON
) -> Sequence[UsageEvent]:
    """Make events, each of another group and spool in turn."""
    made = []
    for number in range(count):
        group = f"group-{number % groups if groups < count else next(_numbers) * 7919 % groups}"
        sequence = next(_numbers) + 1
        event = cutting.event(sequence, "lab")
        made.append(
            event.model_copy(
                update={
                    "group_id": group,
                    "charged_groups": (group,),
                    "timestamp": at,
                    "producer": Producer(instance=f"spool-{first + number % spools}", sequence=sequence),
                }
            )
        )
    return made


def count(opened: Database, topic: str, some: Sequence[UsageEvent], number: int, partition: int = 0) -> float:
    """Count them; return the seconds of the transaction. Raise RuntimeError where they were not counted."""
    begin = number * BATCH
    batch = EventBatch(topic, partition, f"{topic}/{partition}", begin, begin + len(some), tuple(some))
    now = some[0].timestamp
    began = time.perf_counter()
    totals = opened.write_now(lambda connection: transaction.apply(connection, batch, lambda: now))
    took = time.perf_counter() - began
    if totals.position != begin + len(some):
        raise RuntimeError("the batch was not counted")
    return took


def best(work: Callable[[int], float]) -> float:
    """Return the shortest of some rounds."""
    return min(work(number) for number in range(ROUNDS))
