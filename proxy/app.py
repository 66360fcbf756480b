"""Wires one proxy: the only place that sees both its flow and what the flow talks to."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from litestar.types import Middleware

from domain.days import read_period
from proxy.admission import Admissions
from proxy.core import usage_event
from proxy.deadlines import Drains
from proxy.dialects.media import Costs
from proxy.directory import ConfiguredDirectory
from proxy.flow import Gateway
from proxy.front import routes
from proxy.front.host_wall import HostWall
from proxy.front.traces import RequestTraces
from proxy.large import Large
from proxy.limits.counters import Lane, LanePart, SpooledRow
from proxy.limits.days import DayCounters
from proxy.own_usage import OwnUsage
from proxy.refusals import Refusals
from proxy.request_log import RequestLog
from proxy.shares import ReadingRates, WorkspaceShares
from proxy.spool import file as spool_file
from proxy.spool import slots, writer
from proxy.spool.file import SpoolFile
from proxy.spool.slots import Slots
from proxy.topic.lanes import TreeLanes
from proxy.topic.publisher import Ends, EventWriter, SpoolPublisher
from proxy.unmetered import Unmetered
from proxy.upstream import wiring
from proxy.windows import leases
from proxy.windows import redis as shared_windows
from proxy.windows.leases import SharedPlaces
from runtime import ids, loops, shares
from runtime.beside import Beside
from runtime.clock import Clock
from runtime.deadlines import Deadlines
from runtime.http import host_wall as host_walls
from runtime.http.exchange import Routes
from runtime.settings import OnDisconnect, Settings
from runtime.telemetry.metrics import Telemetry
from runtime.telemetry.traces import Traces
from runtime.vault import Vault
from schemas.config import ConfigChange
from schemas.decisions import DecisionBySequence, HeardDecision, Spread, Whole
from schemas.limits import UsageLimitUnit
from schemas.spooled import AnyEvent
from schemas.usage import Outcome, UsageDraft

_TIDY_EVERY_S = 5
_LARGEST_AT_ONCE = 2
"""Bodies of the largest size that a key may have read at once, before its rate holds it."""
_KEPT_DAYS = timedelta(days=2)

log = logging.getLogger(__name__)


class Proxy:
    """One proxy over a data directory that the caller has locked."""

    def __init__(
        self, settings: Settings, data_dir: Path, vault: Vault, clock: Clock, traces: Traces | None = None
    ) -> None:
        self.directory = ConfiguredDirectory(wiring.places(settings), vault)
        self._spool_folder = data_dir / spool_file.FOLDER
        self.spool, older = writer.open_folder(
            self._spool_folder, sync=settings.spool_sync, max_bytes=settings.spool_max_bytes
        )
        self.older_files = writer.drained(older)
        self._slots = Slots(data_dir / slots.FILE, count=settings.max_in_flight)
        self.days = DayCounters(self.spool.instance, self.spool.file.lane)
        self._lanes: TreeLanes | None = None
        self._windows, self._places = leases.opened(settings)
        self._deadlines = Deadlines()
        self._upstreams = wiring.providers(settings, self._deadlines, clock)
        self._settings = settings
        self._clock = clock
        self._answered: Counter[int] = Counter()
        self.bodies = shares.Shares(settings.max_buffered_bytes, settings.share_bodies)
        """The bytes of request bodies that are held, by workspace."""
        self._decided = 0
        self._wall = HostWall(self.directory, accept_bearer=settings.accept_bearer, is_strict=settings.strict_hosts)
        self._large = Large(Beside(), Costs(settings.estimate_image_tokens, settings.estimate_media_tokens))
        self._traces = None if traces is None else RequestTraces(traces, self._deadlines)
        self.requests = RequestLog(
            self.spool.instance,
            self._deadlines,
            takes_all=settings.access_log,
            on_ended=None if self._traces is None else self._traces.ended,
        )
        self._build(settings)

    def routes(self) -> Routes:
        """Return what the public port hands to the flow itself."""
        settings = self._settings
        return routes.metered(
            self._gateway,
            self._unmetered,
            self._refusals,
            self._wall,
            self._answered,
            max_body_bytes=settings.max_body_bytes,
            body_within_s=settings.body_timeout_s,
            bodies=self.bodies,
            traces=self._traces,
        )

    def handlers(self) -> list[Any]:
        """Return the rest of the inference API, for a Litestar app."""
        own_usage = OwnUsage(self._admissions, self.directory, self.days, self._clock)
        return routes.handlers(self._admissions, own_usage, self._refusals, self._wall)

    def host_wall(self) -> Middleware:
        """Return what of the rest of its port is hidden under a lab's own host name."""

        async def owner(host: str) -> str | None:
            return self.directory.host_owner(host)

        return host_walls.middleware(owner, is_strict=self._settings.strict_hosts)

    def _build(self, settings: Settings) -> None:
        minter = ids.Minter()
        admissions = Admissions(
            directory=self.directory,
            day_counters=self.days,
            rate_windows=self._windows,
            places=self._places,
            in_flight=self._slots,
            accept_bearer=settings.accept_bearer,
            clock=self._clock,
            mint=minter.mint,
            mint_request=minter.uuid7,
            most_output_tokens=settings.default_max_output_tokens,
            large=self._large,
        )
        of_both: dict[str, Any] = {
            "admissions": admissions,
            "upstream": self._upstreams,
            "deadlines": self._deadlines,
            "first_byte_s": settings.upstream_first_byte_timeout_s,
            "idle_s": settings.upstream_idle_timeout_s,
            "request_s": settings.request_timeout_s,
            "shares": _shares(settings),
        }
        self._admissions, self._refusals = admissions, Refusals(admissions, self.requests)
        self._gateway = Gateway(
            sink=self.spool,
            drains=_drains(settings),
            large=self._large,
            requests=self.requests,
            refusals=self._refusals,
            **of_both,
        )
        self._unmetered = Unmetered(**of_both)

    async def recover(self, is_counted: Callable[[str], Awaitable[bool]]) -> list[UsageDraft]:
        """Count the rows that spools still hold, and bill what was in flight when the last process died.

        Return the events of the latter. `is_counted` knows the keys of the ledger: after a power cut a slot may be back
        whose event was long counted. To be called once, before the first request.
        """
        spooled = set()
        for file in (*self.older_files, self.spool.file):
            for event in file.remaining():
                spooled.add(event.idempotency_key)
                self._restore(file, event)
        interrupted = []
        for kept in self._slots.leftovers():
            try:
                draft = usage_event.interrupted(kept, bill=self._settings.bill_interrupted)
            except ValueError:  # torn by a power cut
                log.error("a request that was in flight cannot be read any more, so it is not billed")  # noqa: TRY400
                continue
            if draft.idempotency_key not in spooled and not await is_counted(draft.idempotency_key):
                sequence = await self.spool.put(draft)
                self._restore(self.spool.file, spool_file.numbered(draft, self.spool.instance, sequence))
                interrupted.append(draft)
        self._slots.forget_leftovers()
        return interrupted

    def publisher(self, writer: EventWriter, ends: Ends, partitions: int) -> SpoolPublisher:
        """Return what drains this proxy's spools to Kafka, where it runs apart from metering and webhooks.

        To be called before `recover`; the usage topic has `partitions`.
        """
        files = {file.instance: file for file in (*self.older_files, self.spool.file)}
        self._lanes = TreeLanes(partitions, files, self.spool.file)
        self.days.use_lanes(range(partitions), self._lanes.of)
        drained = spool_file.drained_instances(self._spool_folder)
        is_traced = self._traces is not None
        return SpoolPublisher(self.spool, self.older_files, drained, writer, self.days, ends, is_traced=is_traced)

    def apply(self, change: ConfigChange) -> None:
        """Take a change of the configuration."""
        self.directory.apply(change)

    async def place_published(self, ends: Ends) -> None:
        """Say where the rows are that a proxy of the version before has published: below the present ends."""
        files = [file for file in (*self.older_files, self.spool.file) if file.is_unplaced]
        if not files:
            return
        found = await ends()
        for file in files:
            mark = file.acknowledged_through
            for lane, end in found.items():
                file.placed.note(lane, mark, end - 1)
                self.days.acknowledge(
                    lane, file.instance, [(sequence, end - 1) for sequence in range(file.begin(), mark + 1)]
                )

    def take_decisions(self, told: Sequence[HeardDecision | Whole | Spread]) -> None:
        """Take decisions on day and month limits."""
        for one in told:
            if isinstance(one, Spread):
                if self._lanes is not None:
                    self._lanes.spread(one.group_id, one.lanes)
            elif isinstance(one, Whole):
                self._decided += 1
                self.days.take_whole(one.lane, one.at)
            else:
                part = LanePart(one.version, one.at, one.requests, one.tokens, one.output_tokens, one.cost)
                day, unit = read_period(one.period)
                self.take_part(one.group_id, one.model_slug, day, one.lane, part, unit)

    def take_decisions_by_sequence(self, decisions: Sequence[DecisionBySequence]) -> None:
        """Take what a metering of the version before tells."""
        for decision in decisions:
            self.days.take_by_sequence(decision)

    def take_part(  # noqa: PLR0917 - a part, and what it is of
        self, group: str, slug: str, day: date, lane: Lane, part: LanePart, unit: UsageLimitUnit = UsageLimitUnit.DAY
    ) -> None:
        """Take a part of a counter from metering; a month is named by its first day."""
        self._decided += 1
        take = self.days.take_part if unit is UsageLimitUnit.DAY else self.days.take_month
        take(group, slug, day, lane, part)

    def take_whole(self, lane: Lane, at: int) -> None:
        """Take it that the metering of this process has told all of a lane below `at`."""
        self.days.take_whole(lane, at)

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what is known of requests, of the spool and of decisions."""
        telemetry.counter(
            "tollgate_requests_total",
            "Chat completions that have ended, by the HTTP status of the answer; 0: the client left before it began.",
            lambda: {str(status): count for status, count in self._answered.items()},
            "status",
        )
        telemetry.gauge("tollgate_requests_in_flight", "Requests admitted and not ended.", lambda: self._slots.in_use)
        telemetry.counter(
            "tollgate_usage_events_total",
            "Usage events given to the spool, by outcome; one that it could not keep is answered with 503.",
            lambda: {outcome.value: self.spool.taken[outcome] for outcome in Outcome},
            "outcome",
        )
        telemetry.gauge("tollgate_spool_rows", "Usage events that the open spool file holds.", lambda: self.spool.rows)
        telemetry.gauge(
            "tollgate_spool_blocked",
            "1 while no usage event could be kept, so that every request is answered with 503, else 0.",
            lambda: self.spool.blocked is not None,
        )
        shared_windows.register_metrics(telemetry, self._windows)
        self.requests.register_metrics(telemetry)
        telemetry.counter("tollgate_decisions_total", "Decisions heard from metering.", lambda: self._decided)
        telemetry.gauge(
            "tollgate_limit_used_ratio",
            "What share of a usage limit is used, of the 50 fullest above 0.9 that calls met here.",
            lambda: self.days.near(self._clock().date()),
            ("group", "slug", "type", "unit"),
        )
        telemetry.gauge(
            "tollgate_feedback_lag_seconds",
            "Age in seconds of the oldest usage event of today in this proxy's spool that no decision counts yet.",
            self._feedback_lag_s,
        )

    async def _feedback_lag_s(self) -> float:
        now = self._clock()
        awaited = self.days.oldest_awaited(now.date())
        lag_s = 0.0
        for file in (*self.older_files, self.spool.file):
            if file.instance in awaited:  # a row that went uncounted because the spool was full: the next one tells
                spooled = await file.rows(awaited[file.instance], 1, spool_file.spooled_at)
                lag_s = max([lag_s, *((now - at).total_seconds() for at in spooled)])
        return lag_s

    def background(self) -> Mapping[str, Callable[[], Any]]:
        """Return the coroutines that run as long as the process, by the names of these loops."""
        running = {"the spool's upkeep": self.spool.maintain, "the limits' upkeep": self._tidy}
        if isinstance(self._places, SharedPlaces):
            running |= {"the shared rate windows": self._places.windows.keep, "the leases of places": self._places.keep}
        return running

    async def close(self) -> None:
        """Close connections and files; requests have ended."""
        try:
            await self._upstreams.close()
            await self._large.close()
        finally:
            self.spool.close()
            for file in self.older_files:
                file.close()
            self._slots.close()

    def _restore(self, file: SpoolFile, event: AnyEvent) -> None:
        tokens = event.tokens.input_tokens + event.tokens.output_tokens
        sequence = event.producer.sequence
        lane: Lane = file.lane
        offset: int | None = sequence  # embedded, a spool is its own lane
        if self._lanes is not None:
            lane = self._lanes.of(event.charged_groups[-1], file.instance, sequence)
            offset = file.placed.offset_of(lane, sequence)
        self.days.restore(
            event.charged_groups,
            event.model_slug,
            event.timestamp.date(),
            SpooledRow(sequence, tokens, offset, event.tokens.output_tokens, event.cost),
            lane=lane,
            instance=file.instance,
        )

    async def _tidy(self) -> None:
        while True:
            loops.turned(rest_s=_TIDY_EVERY_S)
            await asyncio.sleep(_TIDY_EVERY_S)
            self._windows.forget_idle()
            self.requests.say_what_was_left_out()
            self.days.forget(self._clock().date() - _KEPT_DAYS)


def _drains(settings: Settings) -> Drains:
    most = settings.drain_max if settings.on_disconnect is OnDisconnect.DRAIN else 0
    return Drains(settings.drain_seconds, most, settings.share_in_flight)


def _shares(settings: Settings) -> WorkspaceShares:
    return WorkspaceShares(
        shares.Shares(settings.max_in_flight, settings.share_in_flight),
        shares.Shares(settings.max_answer_bytes, settings.share_answers),
        ReadingRates(settings.parse_bytes_per_s, _LARGEST_AT_ONCE * settings.max_body_bytes, time.monotonic),
    )
