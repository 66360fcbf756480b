"""Measures what the formulas need, with the product's own functions, in a few seconds.

Never reports the cost of work whose result was not checked.
"""

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from domain.sources import EventBatch
from infra.simulate import cutting
from infra.simulate.walls import Constants
from metering.core import decisions
from metering.core.decisions import Part
from metering.core.sums import Counter, LimitTotal
from metering.store import transaction
from proxy.limits import counters
from proxy.limits.days import DayCounters
from proxy.topic.decisions import DecisionsFeed
from runtime.database import engines
from runtime.database.engines import Database
from runtime.kafka.feed import FeedRecord
from runtime.kafka.writer import Kafka
from schemas.decisions import HeardDecision, Spread, Whole
from schemas.usage import UsageEvent
from tollgate import migrations

EVENTS = 1000
ROUNDS = 5
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)


def constants(folder: Path, request_us: float) -> Constants:
    """Measure on this machine; `request_us` is `./run bench hot_path`'s."""
    with engines.sqlite(folder / "simulated.db") as database:
        migrations.upgrade(database)
        alike = _counting(database, "alike", lambda _: "one")
        apart = _counting(database, "apart", lambda number: f"lab-{number}")
        ledger = _ledger_bytes(database)
    event = cutting.event(1, "lab").model_dump_json(by_alias=True)
    return Constants(
        request_us=request_us,
        decision_us=_hearing(),
        event_us=alike,
        counter_us=max(0.0, apart - alike),
        decision_bytes=len(_decision(1)),
        event_bytes=len(event),
        ledger_bytes=ledger,
    )


def _best(work: Callable[[int], None], each: int) -> float:
    """Return the least CPU time of a round, in microseconds for each of its things."""
    spent = []
    for number in range(ROUNDS):
        began = time.process_time()
        work(number)
        spent.append(time.process_time() - began)
    return min(spent) / each * 1e6


def _counting(database: Database, topic: str, workspace: Callable[[int], str]) -> float:
    def work(number: int) -> None:
        first = number * EVENTS
        batch = EventBatch(topic, 0, f"{topic}/0", first, first + EVENTS, tuple(_events(topic, first, workspace)))
        totals = database.write_now(lambda connection: transaction.apply(connection, batch, lambda: NOON))
        if totals.position != first + EVENTS:
            raise RuntimeError("the batch was not counted")

    return _best(work, EVENTS)


def _events(topic: str, first: int, workspace: Callable[[int], str]) -> Sequence[UsageEvent]:
    begin = first + (0 if topic == "alike" else 10**6)
    return [cutting.event(begin + number, workspace(number)) for number in range(EVENTS)]


def _ledger_bytes(database: Database) -> float:
    names = "'usage_event', 'pk_usage_event'"
    text = (
        "SELECT sum(pgsize) FROM dbstat WHERE name = 'usage_event' OR name IN"
        f" (SELECT name FROM sqlite_master WHERE tbl_name = 'usage_event' AND name NOT IN ({names}))"
    )
    size = database.read_now(lambda connection: connection.exec_driver_sql(text).scalar_one())
    return float(size) / (2 * ROUNDS * EVENTS)


def _hearing() -> float:
    """Return what a proxy pays for one decision: no record names a proxy, so it is the same for any number of them."""
    days = DayCounters("proxy")
    days.use_lanes([0], lambda *_: 0)
    heard = 0

    def take(told: Sequence[HeardDecision | Whole | Spread]) -> None:
        nonlocal heard
        for one in told:
            if isinstance(one, HeardDecision):
                heard += 1
                part = counters.LanePart(one.version, one.at, one.requests, one.tokens)
                days.take_part(one.group_id, one.model_slug, NOON.date(), one.lane, part)

    feed = DecisionsFeed(Kafka("nowhere"), take, lambda: NOON)

    records = [FeedRecord(b"counter", _decision(at), (), 0, at) for at in range(ROUNDS * EVENTS)]

    def work(number: int) -> None:
        feed._heard_ends[0] = (number + 1) * EVENTS  # noqa: SLF001 - as its consumer would say
        feed._take(records[number * EVENTS : (number + 1) * EVENTS])  # noqa: SLF001

    cost = _best(work, EVENTS)
    if heard != ROUNDS * EVENTS:
        raise RuntimeError("decisions were not heard")
    return cost


def _decision(number: int) -> bytes:
    counter = Counter(NOON.date(), f"01JNA0000000000000000{number % 1000:05d}", "lab/model")
    total = LimitTotal(counter, number, 1000 * number, number + 1, 600 * number, 400 * number)
    told = decisions.decision(Part("usage.events.v1/0", 0, number, total))
    return json.dumps(json.loads(told.model_dump_json()), separators=(",", ":")).encode()
