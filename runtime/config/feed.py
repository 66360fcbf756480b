"""Follows the configuration: ``gateway.config.v1``, and the database's log while nothing is heard of it (counting 8).

Never needs the database while Kafka is there, never stops at a change that cannot be read or applied, and never lets a
receiver go on without knowing of an end: one that was away for longer than ends are kept reads everything again.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from runtime import loops, outage
from runtime.clock import Clock
from runtime.config import log as config_log
from runtime.config import records as config_records
from runtime.config.lag import Propagation
from runtime.config.restored import RestoreWatch
from runtime.config.skipped import SkippedChanges
from runtime.database.engines import Database
from runtime.kafka import feed
from runtime.kafka.feed import Feed, FeedConsumer, FeedRecord
from runtime.kafka.writer import Kafka
from runtime.outage import Outage, Pause
from runtime.telemetry.metrics import Telemetry
from schemas.config import ConfigChange, ConfigKind
from schemas.topics import GATEWAY_CONFIG

READ_EVERY_S = 30.0
"""How often the database is asked while nothing is heard: a change is in force within 40 s then (contract 2: 60 s)."""

STALE_S = 5 * 86_400.0
"""Well below `delete.retention.ms` of the topic (7 days): after so long an end may have come and gone unheard."""

_REREAD = timedelta(minutes=10)
"""What is read again in a silence: the message that was lost may be older than the newest one heard."""

_LOOK_EVERY_S = 1.0
_PAGE = 1000

log = logging.getLogger(__name__)

OnChanges = Callable[[Sequence[ConfigChange]], None]
"""Takes changes in order, on the event loop; any may come again, also after a newer one: versions tell."""


class ConfigFeed:
    """Hands every change of `kinds` to `on_changes`; `database` None: there is nothing to fall back on."""

    def __init__(
        self,
        where: Kafka,
        on_changes: OnChanges,
        database: Database | None,
        clock: Clock,
        *,
        kinds: Collection[ConfigKind] = config_records.EVERY_KIND,
        silence_s: float = feed.SILENCE_S,
        read_every_s: float = READ_EVERY_S,
        steady: Callable[[], float] = time.monotonic,
        pause: Pause = asyncio.sleep,
        connect: Callable[[Kafka], FeedConsumer] = feed.connect,
    ) -> None:
        self.version = 0  # the newest known
        self._on_changes = on_changes
        self._database = database
        self._kinds = frozenset(kinds)
        self._silence_s, self._read_every_s = silence_s, read_every_s
        self._clock, self._steady, self._pause = clock, steady, pause
        self._propagation = Propagation(clock)
        self._feed = Feed(
            where,
            GATEWAY_CONFIG,
            self._take,
            on_ends=self._note_ends,
            silence_s=silence_s,
            steady=steady,
            pause=pause,
            connect=connect,
        )
        self._skipped = SkippedChanges(GATEWAY_CONFIG, steady)
        self._outage = Outage("the configuration's fallback", log, pause, passes=_passes)
        self._restore_watch = RestoreWatch()
        self._known_at = steady()
        self._asked_at: float | None = None  # when the database was asked last in this silence
        self._ids: defaultdict[ConfigKind, set[str]] = defaultdict(set)  # what a receiver may hold: its own strings
        self._reload: _Reload | None = None
        self._is_whole = False
        self._caught_up = asyncio.Event()

    @property
    def heard_at(self) -> float:
        """When a change or the relay's heartbeat was heard last, in seconds of `steady`."""
        return self._feed.heard_at

    @property
    def is_caught_up(self) -> bool:
        """Whether all of the configuration has been read that there was at start. Once true, it stays true.

        A topic without a heartbeat is one that the relay has not filled yet: keys that are not in it may well exist.
        """
        return self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Return when all of the configuration has been read that there was at start."""
        await self._caught_up.wait()

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show how far the configuration is known, how long changes took, and whether the relay is heard."""
        self._propagation.register_metrics(telemetry, lambda: self.version)
        self._skipped.register_metrics(telemetry)
        telemetry.gauge(
            "tollgate_config_silence_seconds",
            "Seconds since a change or the relay's heartbeat (every 3 s) was heard over Kafka.",
            lambda: self._steady() - self.heard_at,
        )

    async def run(self) -> None:
        """Follow until cancelled; outages are waited out."""
        loops.has_parts()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(loops.run("the reader of the configuration", self._feed.run()))
            if self._database is not None:
                tasks.create_task(loops.run("the configuration's fallback", self._fall_back(self._database)))

    def _take(self, records: Sequence[FeedRecord]) -> None:
        now = self._steady()
        if now - self._known_at >= STALE_S:
            self._begin_reload("nothing was heard for days")
        self._known_at = now
        changes, newest = config_records.decode(records, self._kinds, self._skip)
        if self._reload is not None:
            self._reload.note(changes, newest)
        self._restore_watch.heard(config_records.heartbeats(records), self.version)
        self._hand_over(changes, newest)
        self._is_whole = self._is_whole or any(record.key == config_records.HEARTBEAT_KEY for record in records)
        self._note_whole()

    def _note_whole(self) -> None:
        if self._is_whole and self._feed.is_caught_up:
            self._caught_up.set()

    def _hand_over(self, changes: Sequence[ConfigChange], newest: int) -> None:
        for change in changes:
            if change.record is not None:
                self._ids[change.kind].add(change.id)
        known, was_caught_up = self.version, self.is_caught_up
        try:
            if changes:
                self._on_changes(changes)
        except Exception:  # noqa: BLE001 - one that cannot be applied must not keep the others from it
            for change in changes:
                self._hand_over_one(change)
        for change in changes:
            if was_caught_up and change.version > known:  # neither of the start nor published again
                self._propagation.applied(change)
                known = change.version
        self.version = max(self.version, newest)

    def _hand_over_one(self, change: ConfigChange) -> None:
        try:
            self._on_changes([change])
        except Exception as error:  # noqa: BLE001 - likewise
            self._skipped.skip(f"version {change.version} of a {change.kind}", error)

    def _skip(self, record: FeedRecord, error: Exception) -> None:
        self._skipped.skip(record.place, error)

    async def _fall_back(self, database: Database) -> None:
        while True:
            loops.turned(rest_s=_LOOK_EVERY_S)
            await self._pause(_LOOK_EVERY_S)
            now = self._steady()
            if now - self.heard_at < self._silence_s:
                if self._asked_at is not None:
                    log.info("%s: the relay is heard again", GATEWAY_CONFIG)
                self._asked_at = None
            elif self.is_caught_up and (self._asked_at is None or now - self._asked_at >= self._read_every_s):
                if self._asked_at is None:
                    log.warning("%s: the relay is not heard: the database is asked for changes", GATEWAY_CONFIG)
                read = partial(self._read_log, database, again=self._asked_at is None)
                self._asked_at = now
                await self._outage.ride_out(read)

    async def _read_log(self, database: Database, *, again: bool) -> None:
        """Take what the log has beyond the known version; `again`: the last minutes' changes too."""
        oldest, current, since = await database.read(partial(self._reach, again=again))
        if current > self.version and (oldest is None or oldest > self.version + 1):
            self._begin_reload("the database's log begins later than what is known")
        while True:
            read = await database.read(
                partial(config_log.read_since, version=since, skip=self._skipped.skip, limit=_PAGE)
            )
            if read.newest == since:
                break
            since = read.newest
            self._hand_over([change for change in read.changes if change.kind in self._kinds], since)
        self._known_at = self._steady()

    def _reach(self, connection: Connection, *, again: bool) -> tuple[int | None, int, int]:
        since = self.version
        if again:
            since = min(since, config_log.version_before(connection, self._clock() - _REREAD))
        return config_log.oldest_version(connection), config_log.current_version(connection), since

    def _begin_reload(self, why: str) -> None:
        if self._reload is None:
            log.warning("%s: %s: all of it is read again", GATEWAY_CONFIG, why)
            self._reload = _Reload()
            self._feed.reload()

    def _note_ends(self) -> None:
        """End what a reload did not find, as of the newest version that it found: later ones are not touched."""
        self._note_whole()
        reload, self._reload = self._reload, None
        if reload is None:
            return
        for kind, known in self._ids.items():
            gone = known - reload.ids[kind]
            self._ids[kind] = reload.ids[kind]
            ends = [ConfigChange(version=reload.newest, kind=kind, id=id_, record=None) for id_ in gone]
            self._hand_over(ends, reload.newest)


def _passes(error: BaseException) -> bool:
    """Tell whether it came of the database, whatever it was: while that is restored, its tables or rows are missing."""
    return isinstance(error, SQLAlchemyError) or outage.is_transient(error)


class _Reload:
    """What a reload has found so far."""

    def __init__(self) -> None:
        self.newest = 0
        self.ids: defaultdict[ConfigKind, set[str]] = defaultdict(set)

    def note(self, changes: Sequence[ConfigChange], newest: int) -> None:
        self.newest = max(self.newest, newest)
        for change in changes:
            if change.record is not None:
                self.ids[change.kind].add(change.id)
