"""Relays the configuration, and the outbox of corrections, to Kafka: one process at a time (counting 8).

Never marks as sent what Kafka has not acknowledged, never sends without having asked whether it still leads, and never
drops a change: what fails is sent again, in order, by this process or by the next one to lead.

What is written may come twice, and a process that was stopped between its question and its send may write an old
change late. Readers ignore a version lower than the one they hold; and since compaction keeps the record that was
written last, the changes of the last 10 minutes are written again on taking over and every 45 s.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from control.store import corrections, published, snapshot
from runtime import loops, outage
from runtime.clock import Clock
from runtime.config import log as config_log
from runtime.config import records as config_records
from runtime.config.rounds import Rounds
from runtime.database.engines import Database
from runtime.database.leadership import Leadership, LeadershipLostError
from runtime.kafka.writer import KafkaAwayError, KafkaRecord, RecordTooLargeError, cloud_event
from runtime.outage import Outage, Pause
from runtime.telemetry.metrics import Telemetry
from schemas.topics import GATEWAY_CONFIG, USAGE_EVENTS
from schemas.usage import UsageEvent

POLL_S = 0.25
"""Changes by other processes are seen this late at most."""

PUBLISHED_WITHIN_S = 0.25
"""A change is answered once it is published, where that takes no longer than this."""

_LOOK_EVERY_S = 0.05

HEARTBEAT_S = 3.0

REPUBLISH_EVERY_S = 45.0
"""A lost message is mended within the minute that a change may take at the very most (contract 2)."""

REPUBLISHED = timedelta(minutes=10)

_TAKE_EVERY_S = 1.0
_BATCH = 1000
_PAGE_WITHIN_S = 30.0

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class ConfigWriter(Protocol):
    """Writes to Kafka; `runtime.kafka.writer.Writer` is the real one."""

    async def write(self, topic: str, records: Sequence[KafkaRecord]) -> None:
        """Return when the broker has all of them. Raise KafkaAwayError, RecordTooLargeError."""

    async def close(self) -> None:
        """Let go of the connections."""


class ConfigPublisher:
    """The relay of one process of control's. `end_of_config` gives the end of the topic, or raises KafkaAwayError."""

    def __init__(
        self,
        database: Database,
        writer: ConfigWriter,
        leadership: Leadership,
        end_of_config: Callable[[], Awaitable[int]],
        clock: Clock,
        *,
        steady: Callable[[], float] = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._database = database
        self._writer = writer
        self._leadership = leadership
        self._end_of_config = end_of_config
        self._clock = clock
        self._steady = steady
        self._pause = pause
        self._rounds = Rounds()
        self._is_leading = False
        self._unsent = 0
        self._outage = Outage("the relay to Kafka", log, pause, of="the database and Kafka", passes=_passes)
        self._sent = 0
        self._end = 0
        """The topic is at least as long, or it was lost."""
        self._beat_at = self._republish_at = 0.0
        self._republished: int | None = None
        """How far the round has got that writes the last 10 minutes again."""

    def poke(self) -> None:
        """Look at once instead of at the next poll. Called on the event loop."""
        self._rounds.poke()

    async def in_force(self) -> None:
        """Return when Kafka has all that is committed, at the latest after `PUBLISHED_WITHIN_S`.

        Where another process relays, its mark is looked at. What keeps it from knowing is no reason to fail: the change
        is committed.
        """
        if self._is_leading:
            await self._rounds.whole(PUBLISHED_WITHIN_S)
            return
        try:
            async with asyncio.timeout(PUBLISHED_WITHIN_S):
                version = await self._read(config_log.current_version)
                while await self._read(published.read, published.CONFIG) < version:
                    await self._pause(_LOOK_EVERY_S)
        except Exception as error:
            if not _passes(error):
                raise

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show who relays, and how far."""
        telemetry.gauge(
            "tollgate_relay_leading", "1 where this process relays to Kafka, else 0.", lambda: self._is_leading
        )
        telemetry.gauge(
            "tollgate_relay_unsent_changes",
            "Configuration changes and corrections that this relay holds and Kafka has not, at most 1000 of each.",
            lambda: self._unsent,
        )
        telemetry.gauge(
            "tollgate_relay_sent_version", "Newest version that this relay knows Kafka has.", lambda: self._sent
        )

    async def run(self) -> None:
        """Relay whenever no other process does, until cancelled. An outage is waited out."""
        try:
            await self._outage.ride_out(self._lead)
        finally:
            await self._writer.close()

    async def _lead(self) -> None:
        try:
            while not await self._leadership.take():
                self._outage.passed()
                loops.turned(rest_s=_TAKE_EVERY_S, waits_for="the process that relays to end")
                await self._pause(_TAKE_EVERY_S)
            self._is_leading = True
            await self.take_over()
            more = await self._rounds.take(self.step)
            log.info("this process relays the configuration to Kafka")
            while True:
                self._outage.passed()
                loops.turned(rest_s=POLL_S)
                if not more:
                    await self._rounds.rest(POLL_S)
                more = await self._rounds.take(self.step)
        finally:
            self._is_leading = False
            await self._leadership.release()

    async def take_over(self) -> None:
        """Begin where the last one stood; to be called once the leadership is held, before the first `step`."""
        self._sent = await self._read(published.read, published.CONFIG)
        self._end = await self._read(published.read, published.CONFIG_END)
        self._beat_at = self._republish_at = self._steady()
        self._republished = None
        await self._take_stock()

    async def step(self) -> bool:
        """Send what there is; say whether there is more."""
        now = self._steady()
        changes, made = await self._database.read(self._read_unsent)
        self._unsent = len(changes) + len(made)
        if changes:
            await self._send(changes)
            self._sent = changes[-1].version
            await self._write(published.advance, published.CONFIG, self._sent)
        if made:
            await self._publish(USAGE_EVENTS, [_correction(event, group) for event, group in made])
            await self._write(published.advance, published.CORRECTIONS, made[-1][0].producer.sequence)
        self._unsent = 0
        if now >= self._beat_at:
            await self._take_stock()  # a heartbeat says that the topic is whole
            await self._publish(GATEWAY_CONFIG, [config_records.heartbeat(self._sent, self._clock())])
            self._beat_at = now + HEARTBEAT_S
        if now >= self._republish_at:
            await self._forget()
            self._republished = await self._read(config_log.version_before, self._clock() - REPUBLISHED)
            self._republish_at = now + REPUBLISH_EVERY_S
        await self._republish()
        return self._republished is not None or _BATCH in {len(changes), len(made)}

    def _read_unsent(
        self, connection: Connection
    ) -> tuple[list[config_log.LoggedChange], list[tuple[UsageEvent, str]]]:
        changes = config_log.rows_since(connection, self._sent, _BATCH)
        return changes, corrections.unsent(connection, published.read(connection, published.CORRECTIONS), _BATCH)

    async def _republish(self) -> None:
        """Write the next of the last 10 minutes' changes again, up to what was sent by now: so the newest come last."""
        if self._republished is None:
            return
        rows = await self._read(config_log.rows_since, self._republished, _BATCH)
        again = [row for row in rows if row.version <= self._sent]
        await self._send(again)
        self._republished = again[-1].version if len(again) == _BATCH else None

    async def _forget(self) -> None:
        while await self._write(config_log.forget, self._clock() - config_log.KEPT, self._sent) == config_log.STEP:
            pass

    async def _take_stock(self) -> None:
        """Fill the topic where it is empty or shorter than it was: it is a new one, or its content was lost."""
        end = await self._end_of_config()
        if self._end == 0 or end < self._end:
            await self._fill()
            end = await self._end_of_config()
        self._end = end
        await self._write(published.put, published.CONFIG_END, end)

    async def _fill(self) -> None:
        """Publish the whole configuration; until that is done, whoever takes over begins anew.

        The log comes first: those who knew the lost topic learn from it what ended meanwhile.
        """
        await self._write(published.put, published.CONFIG_END, 0)
        version = 0
        while rows := await self._read(config_log.rows_since, version, _BATCH):
            await self._send(rows)
            version = rows[-1].version
        self._sent = max(self._sent, version)
        await self._publish_live()
        await self._write(published.advance, published.CONFIG, self._sent)
        log.warning("%s did not hold the configuration: all of it was published", GATEWAY_CONFIG)

    async def _publish_live(self) -> None:
        """Publish page by page out of one transaction that reads in its thread: there may be a million keys."""
        loop, stopped = asyncio.get_running_loop(), threading.Event()

        def read(connection: Connection) -> None:
            _, changes = snapshot.snapshot(connection)
            for page in _pages(changes, _BATCH):
                if stopped.is_set():
                    return
                records = [config_records.of(change, self._clock()) for change in page]
                page_sent = asyncio.run_coroutine_threadsafe(self._publish(GATEWAY_CONFIG, records), loop)
                try:
                    page_sent.result(_PAGE_WITHIN_S)
                except BaseException:
                    page_sent.cancel()  # else the next attempt's pages would come beside this one
                    raise

        reading = asyncio.ensure_future(self._database.read(read))
        try:
            await asyncio.shield(reading)
        finally:
            stopped.set()  # the thread must not outlive this call
            await asyncio.wait({reading}, timeout=_PAGE_WITHIN_S)

    async def _send(self, rows: Sequence[config_log.LoggedChange]) -> None:
        if rows:
            await self._publish(GATEWAY_CONFIG, [config_records.encode(*row) for row in rows])

    async def _publish(self, topic: str, records: Sequence[KafkaRecord]) -> None:
        await self._leadership.check()
        try:
            await self._writer.write(topic, records)
        except RecordTooLargeError:
            if len(records) == 1:  # it would hold back everything behind it for ever
                log.exception("%s: the record %r is left out", topic, records[0].key)
                return
            for record in records:
                await self._publish(topic, [record])
        else:
            self._end += len(records) if topic == GATEWAY_CONFIG else 0

    async def _read(self, query: Callable[..., Result], *arguments: Any) -> Result:
        return await self._database.read(lambda connection: query(connection, *arguments))

    async def _write(self, query: Callable[..., Result], *arguments: Any) -> Result:
        return await self._database.write(lambda connection: query(connection, *arguments))


def _correction(event: UsageEvent, group: str) -> KafkaRecord:
    headers = cloud_event(f"tollgate.{USAGE_EVENTS}", event.idempotency_key, event.producer.instance, event.timestamp)
    return KafkaRecord(group.encode(), event.model_dump_json(by_alias=True).encode(), headers)


def _pages(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while page := list(islice(items, size)):
        yield page


def _passes(error: BaseException) -> bool:
    return outage.is_transient(error) or isinstance(error, KafkaAwayError | LeadershipLostError | TimeoutError)
