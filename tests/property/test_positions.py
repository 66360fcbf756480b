"""Limits stay exact whatever happens between proxies, Kafka and metering: the real cores in a small world.

Proxies publish and lose acknowledgements, are killed and come back; metering's workers let counters wait, die between
commit and telling, are paused and write late, and take lanes over; the decisions are compacted while slow readers lag;
a tree changes the lanes it is spread over; rows go. A sum is never too low; too high only by rows that were sent twice
or that wait for their acknowledgement; and exact once all is still.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from domain.limit_tree import Threshold
from domain.sources import EventBatch
from metering import flow
from metering.topic.lanes import Lanes, lane_of
from metering.topic.publisher import KafkaTotals
from proxy.limits.counters import LanePart, SpooledRow
from proxy.limits.days import DayCounters
from proxy.spool.placed import Placed
from proxy.topic.decisions import DecisionsFeed
from runtime.kafka.feed import FeedRecord
from runtime.kafka.writer import Kafka
from runtime.outage import Outage
from schemas.decisions import HeardDecision, Spread, Whole
from schemas.limits import LimitType
from schemas.topics import USAGE_EVENTS
from tests.property.decisions_log import DecisionsTopic, Log
from tests.unit.metering.factories import NOON, SLUG, event
from tests.unit.metering.fakes import DictLedger, DictThresholds

DAY = NOON.date()
PROXIES, LANES, GROUPS, STEPS = 3, 3, 4, 900
NAMES = [f"group-{number}" for number in range(GROUPS)]
LIMITS = DictThresholds(**{name: (Threshold(LimitType.REQUEST, 150),) for name in NAMES[1:]})
"""The first group has none, so it is told with `whole` alone."""


class Worker:
    """Metering's real flow, lanes and publisher; it has no memory that outlives it."""

    def __init__(self, world: "World", *, paused: bool = False) -> None:
        self.topic = DecisionsTopic(world.decisions, paused=paused)
        self.totals = KafkaTotals(self.topic, world.clock, _no_record_is_too_large)  # type: ignore[arg-type]
        self.metering = flow.Metering(world.ledger, self.totals, LIMITS, world.clock)
        outage = Outage("test", logging.getLogger("test"))
        self.lanes = Lanes(
            self.metering,
            world.ledger,
            self.totals,
            self.publish,
            decisions=self.topic,  # type: ignore[arg-type]
            clock=world.clock,
            database_outage=outage,
            kafka_outage=outage,
        )

    async def publish(self, counted: Sequence[flow.CountedBatch]) -> bool:
        self.lanes.told(await self.metering.publish(counted))
        return True


class Proxy:
    """One proxy process over what its disk kept."""

    def __init__(self, world: "World", number: int) -> None:
        self.instance = f"proxy-{number}"
        self.world, self.disk = world, world.disks[number]
        self.days = DayCounters(self.instance)
        self.lane = 0
        self.days.use_lanes(range(LANES), lambda *_: self.lane)
        self.feed = DecisionsFeed(Kafka("nowhere"), self._take, world.clock)
        self.read = [0] * LANES
        self.queue: list[list[int]] = [[] for _ in range(LANES)]
        self.unsure: set[int] = set()
        self.placed = Placed(self.disk.state.splitlines())
        for sequence, (group, tokens, lane) in sorted(self.disk.rows.items()):
            offset = self.placed.offset_of(lane, sequence)
            if offset is None:
                self.queue[lane].append(sequence)
            self.unsure.add(sequence)  # its exact offset is not known, or it may be sent again
            self.days.restore(
                [NAMES[group]], SLUG, DAY, SpooledRow(sequence, tokens, offset), lane=lane, instance=self.instance
            )

    def _take(self, told: Sequence[HeardDecision | Whole | Spread]) -> None:
        for one in told:
            if isinstance(one, Whole):
                self.days.take_whole(one.lane, one.at)
            elif isinstance(one, HeardDecision):
                part = LanePart(one.version, one.at, one.requests, one.tokens)
                self.days.take_part(one.group_id, one.model_slug, date.fromisoformat(one.period), one.lane, part)

    def request(self, group: int, tokens: int, lane: int) -> None:
        self.disk.last += 1
        self.disk.rows[self.disk.last] = (group, tokens, lane)
        self.world.made[group].append((self.instance, self.disk.last, tokens))
        reservation = self.days.reserve(DAY, SLUG, (NAMES[group],), (), 1)
        self.lane = lane
        self.days.settle(reservation, self.disk.last, tokens)  # type: ignore[arg-type]
        self.queue[lane].append(self.disk.last)

    def publish(self, lane: int, most: int, *, taken: bool, heard: bool) -> None:
        batch = self.queue[lane][:most]
        if not batch:
            return
        offsets = [self.world.put(lane, self.instance, one, *self.disk.rows[one][:2]) for one in batch if taken]
        if not heard:
            self.unsure |= set(batch)
            return
        del self.queue[lane][: len(batch)]
        self.days.acknowledge(lane, self.instance, zip(batch, offsets, strict=True))
        self.placed.note(lane, batch[-1], offsets[-1])

    def save(self) -> None:
        self.disk.state = self.placed.saved()

    def hear(self, lane: int, most: int) -> None:
        log = self.world.decisions[lane]
        found = [record for record in log.records if record[0] >= self.read[lane]][:most]
        if found:
            self.feed._heard_ends[lane] = log.end
            self.feed._take([FeedRecord(key, value, (), lane, offset) for offset, key, value in found])
            self.read[lane] = found[-1][0] + 1

    def let_go(self) -> None:
        for sequence, (group, _, lane) in sorted(self.disk.rows.items())[:20]:
            self.lane = lane
            offset = self.placed.offset_of(lane, sequence)
            if offset is None or not self.days.may_go([NAMES[group]], SLUG, DAY, self.instance, sequence, offset):
                return
            del self.disk.rows[sequence]


@dataclass
class Disk:
    """What a proxy's death leaves."""

    rows: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    last: int = 0
    state: str = ""


class World:
    """Everything, driven by one source of chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = NOON
        self.ledger = DictLedger(self.clock)
        self.logged: list[list[Any]] = [[] for _ in range(LANES)]
        self.decisions = [Log() for _ in range(LANES)]
        self.disks = [Disk() for _ in range(PROXIES)]
        self.made: defaultdict[int, list[tuple[str, int, int]]] = defaultdict(list)
        self.home = [self.chance.randrange(LANES) for _ in range(GROUPS)]
        self.spread = [1] * GROUPS
        self.late: list[DecisionsTopic] = []
        self.workers = [Worker(self) for _ in range(LANES)]
        self.proxies = [Proxy(self, number) for number in range(PROXIES)]
        self.checks = 0

    def clock(self) -> datetime:
        return self.now

    def put(self, lane: int, instance: str, sequence: int, group: int, tokens: int) -> int:
        number = int(instance[-1]) * 10**6 + sequence
        made = event(sequence, number=number, instance=instance, group_id=NAMES[group], tokens=(tokens, 0, 0))
        self.logged[lane].append(made)
        return len(self.logged[lane]) - 1

    async def count(self, lane: int, most: int, fate: str) -> None:
        """Count some events of a lane, and tell of them as `fate` has it."""
        worker = self.workers[lane]
        await worker.lanes.take_over(lane)
        position = await self.ledger.position(USAGE_EVENTS, lane) or 0
        some = self.logged[lane][position : position + most]
        if not some:
            await worker.lanes.tell_whole(lane)
            return
        batch = EventBatch(USAGE_EVENTS, lane, lane_of(lane), position, position + len(some), tuple(some))
        counted = await worker.metering.count(batch)
        if fate == "killed":
            self.workers[lane] = Worker(self)
        elif fate == "paused":
            late = Worker(self, paused=True)
            await late.publish([counted])
            self.late.append(late.topic)
            self.workers[lane] = Worker(self)
        else:
            await worker.publish(worker.lanes.named([counted]))
            worker.lanes.moved(lane, counted.totals.position)
            if fate == "whole":
                await worker.lanes.tell_whole(lane)

    async def step(self) -> None:
        """Do one thing, or what comes before it."""
        chance = self.chance
        proxy, lane = chance.choice(self.proxies), chance.randrange(LANES)
        self.now += timedelta(seconds=chance.random())
        if chance.random() < 0.02:
            self.spread[chance.randrange(GROUPS)] = chance.choice((1, 2, 3))
        steps = ("request", "publish", "count", "late", "compact", "restart", "hear", "go")
        match chance.choices(steps, (30, 22, 18, 2, 4, 1, 18, 5))[0]:
            case "request":
                self._request(proxy)
            case "publish":
                self._publish(proxy, lane)
            case "count":
                fate = chance.choices(("told", "whole", "killed", "paused"), (80, 12, 4, 4))[0]
                await self.count(lane, chance.randrange(1, 15), fate)
            case "late":
                self._write_late()
            case "compact":
                self.decisions[lane].compact(uncleaned=6)
            case "restart":
                self._restart(int(proxy.instance[-1]))
            case "hear":
                proxy.hear(lane, chance.choice((1, 2, 5, 1000)))
            case _:
                proxy.let_go()

    def _request(self, proxy: Proxy) -> None:
        group = self.chance.randrange(GROUPS)
        lane = (self.home[group] + self.chance.randrange(self.spread[group])) % LANES
        proxy.request(group, self.chance.randrange(1, 9), lane)

    def _publish(self, proxy: Proxy, lane: int) -> None:
        lost = self.chance.random() < 0.1
        proxy.publish(lane, self.chance.randrange(1, 6), taken=not lost or self.chance.random() < 0.5, heard=not lost)
        if self.chance.random() < 0.3:
            proxy.save()

    def _write_late(self) -> None:
        if self.late:
            for partition, key, value in self.late.pop(self.chance.randrange(len(self.late))).late:
                self.decisions[partition].append(key, value)

    def _restart(self, number: int) -> None:
        self.proxies[number] = Proxy(self, number)
        for lane in range(LANES):  # it serves once it has read all there is
            self.proxies[number].hear(lane, 10**6)

    def check(self) -> None:
        """Compare each proxy's sums with its own rows and what the parts that it heard hold of the others'."""
        for proxy in self.proxies:
            for group, name in enumerate(NAMES):
                requests, tokens = proxy.days.total(name, SLUG, DAY)
                want = self._wanted(proxy, group)
                spare = [proxy.disk.rows[one] for one in proxy.unsure if one in proxy.disk.rows]
                unsure = (
                    sum(1 for row in spare if row[0] == group),
                    sum(row[1] for row in spare if row[0] == group),
                )
                assert want[0] <= requests <= want[0] + unsure[0], (proxy.instance, name)
                assert want[1] <= tokens <= want[1] + unsure[1], (proxy.instance, name)
                self.checks += 1

    def _wanted(self, proxy: Proxy, group: int) -> tuple[int, int]:
        counter = proxy.days._periods.counter(NAMES[group], SLUG, DAY)
        own = [tokens for instance, _, tokens in self.made[group] if instance == proxy.instance]
        requests, tokens = len(own), sum(own)
        seen: set[str] = set()
        for lane in range(LANES):
            part = counter.parts.get(lane)
            for one in self.logged[lane][: part.at] if part is not None else ():
                is_others = one.group_id == NAMES[group] and one.producer.instance != proxy.instance
                if is_others and one.idempotency_key not in seen:
                    seen.add(one.idempotency_key)
                    requests, tokens = requests + 1, tokens + one.tokens.input_tokens
        return requests, tokens

    async def rest(self) -> None:
        """Let everything come to its end."""
        for proxy in self.proxies:
            for lane in range(LANES):
                proxy.publish(lane, 10**6, taken=True, heard=True)
        for lane in range(LANES):
            await self.count(lane, 10**6, "whole")
        for late in self.late:
            for partition, key, value in late.late:
                self.decisions[partition].append(key, value)
        for lane in range(LANES):
            await self.workers[lane].lanes.tell_whole(lane)
            await self.workers[lane].lanes.tell_whole(lane)
            self.decisions[lane].compact(uncleaned=0)


def _no_record_is_too_large(key: str, error: Exception) -> None:
    raise error


async def _run(seed: int) -> int:
    world = World(seed)
    for lane in range(LANES):
        await world.workers[lane].lanes.take_over(lane)
    for proxy in world.proxies:
        for lane in range(LANES):
            proxy.hear(lane, 1000)
    for _ in range(STEPS):
        await world.step()
        world.check()
    await world.rest()
    for number, proxy in enumerate(world.proxies):
        proxy.save()
        for alive in (proxy, Proxy(world, number)):
            for lane in range(LANES):
                alive.hear(lane, 10**6)
            for group, name in enumerate(NAMES):
                made = world.made[group]
                assert alive.days.total(name, SLUG, DAY) == (len(made), sum(tokens for _, _, tokens in made))
    return world.checks


@pytest.mark.parametrize("seed", range(12))
def test_sums_are_never_too_low_and_exact_at_rest(seed: int) -> None:
    assert asyncio.run(_run(seed)) == STEPS * PROXIES * GROUPS
