"""Wires one proxy: the only place that sees both its flow and what the flow talks to.

Never decides anything, and never serves before `recover` has put back what an earlier process left.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from proxy.admission import Admissions
from proxy.core import targets, usage_event
from proxy.deadlines import Drains
from proxy.dialects.media import Costs
from proxy.directory import Directory
from proxy.flow import Gateway
from proxy.front import routes
from proxy.limits.days import DayCounters
from proxy.shares import ReadingRates, WorkspaceShares
from proxy.spool import file as spool_file
from proxy.spool import slots, writer
from proxy.spool.slots import Slots
from proxy.topic.publisher import SpoolPublisher, Writer
from proxy.upstream.access_tokens import AccessTokens
from proxy.upstream.pool import Upstreams
from proxy.upstream.providers import Providers
from proxy.windows import redis as shared_windows
from proxy.windows.memory import MemoryWindows
from proxy.windows.redis import SharedWindows
from runtime import ids, loops, shares
from runtime.clock import Clock
from runtime.deadlines import Deadlines
from runtime.http.exchange import Routes
from runtime.settings import OnDisconnect, Settings
from runtime.telemetry.metrics import Telemetry
from runtime.vault import Vault
from schemas.config import ConfigChange
from schemas.decisions import Decision
from schemas.usage import Outcome, UsageDraft, UsageEvent

_TIDY_EVERY_S = 5
_LARGEST_AT_ONCE = 2
"""Bodies of the largest size that a key may have read at once, before its rate holds it."""
_KEPT_DAYS = timedelta(days=2)

log = logging.getLogger(__name__)


class Proxy:
    """One proxy over a data directory that the caller has locked."""

    def __init__(self, settings: Settings, data_dir: Path, vault: Vault, clock: Clock) -> None:
        self.directory = Directory(_places(settings), vault)
        self._spool_folder = data_dir / spool_file.FOLDER
        self.spool, older = writer.open_folder(
            self._spool_folder, sync=settings.spool_sync, max_bytes=settings.spool_max_bytes
        )
        self.older_files = writer.drained(older)
        self._slots = Slots(data_dir / slots.FILE, count=settings.max_in_flight)
        self._days = DayCounters(self.spool.instance)
        self._windows = _windows(settings)
        self._deadlines = Deadlines()
        self._upstreams = _providers(settings, self._deadlines, clock)
        self._settings = settings
        self._clock = clock
        self._answered: Counter[int] = Counter()
        self.bodies = shares.Shares(settings.max_buffered_bytes, settings.share_bodies)
        """The bytes of request bodies that are held, by workspace."""
        self._decided = 0
        self._gateway = self._build(settings)

    def routes(self) -> Routes:
        """Return what the public port hands to the flow itself."""
        settings = self._settings
        return routes.metered(
            self._gateway,
            self._answered,
            max_body_bytes=settings.max_body_bytes,
            body_within_s=settings.body_timeout_s,
            bodies=self.bodies,
        )

    def handlers(self) -> list[Any]:
        """Return the rest of the inference API, for a Litestar app."""
        return routes.handlers(self._gateway)

    def _build(self, settings: Settings) -> Gateway:
        minter = ids.Minter()
        admissions = Admissions(
            directory=self.directory,
            day_counters=self._days,
            rate_windows=self._windows,
            in_flight=self._slots,
            accept_bearer=settings.accept_bearer,
            clock=self._clock,
            mint=minter.mint,
            most_output_tokens=settings.default_max_output_tokens,
            costs=Costs(settings.estimate_image_tokens, settings.estimate_media_tokens),
        )
        return Gateway(
            admissions=admissions,
            upstream=self._upstreams,
            sink=self.spool,
            drains=_drains(settings),
            deadlines=self._deadlines,
            first_byte_s=settings.upstream_first_byte_timeout_s,
            idle_s=settings.upstream_idle_timeout_s,
            request_s=settings.request_timeout_s,
            mint=minter.request_id,
            shares=_shares(settings),
        )

    async def recover(self, is_counted: Callable[[str], Awaitable[bool]]) -> list[UsageDraft]:
        """Count the rows that spools still hold, and bill what was in flight when the last process died.

        Gives the events of the latter. `is_counted` knows the keys of the ledger: after a power cut a slot may be back
        whose event was long counted. To be called once, before the first request.
        """
        spooled = set()
        for file in (*self.older_files, self.spool.file):
            for event in file.remaining():
                spooled.add(event.idempotency_key)
                self._restore(event)
        interrupted = []
        for kept in self._slots.leftovers():
            try:
                draft = usage_event.interrupted(kept, bill=self._settings.bill_interrupted)
            except ValueError:  # torn by a power cut
                log.error("a request that was in flight cannot be read any more, so it is not billed")  # noqa: TRY400
                continue
            if draft.idempotency_key not in spooled and not await is_counted(draft.idempotency_key):
                sequence = await self.spool.put(draft)
                self._restore(spool_file.numbered(draft, self.spool.instance, sequence))
                interrupted.append(draft)
        self._slots.forget_leftovers()
        return interrupted

    def publisher(self, writer: Writer) -> SpoolPublisher:
        """Return what drains this proxy's spools to Kafka, where it runs apart from metering and webhooks."""
        drained = spool_file.drained_instances(self._spool_folder)
        return SpoolPublisher(self.spool, self.older_files, drained, writer, self._days.is_counted, self._clock)

    def apply(self, change: ConfigChange) -> None:
        """Take a change of the configuration."""
        self.directory.apply(change)

    def take_decisions(self, decisions: Sequence[Decision]) -> None:
        """Take metering's word on day limits."""
        self._decided += len(decisions)
        for decision in decisions:
            self._days.take_decision(decision)

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what is known of requests, of the spool and of metering's word."""
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
        if isinstance(self._windows, SharedWindows):
            self._windows.register_metrics(telemetry)
        telemetry.counter("tollgate_decisions_total", "Decisions heard from metering.", lambda: self._decided)
        telemetry.gauge(
            "tollgate_feedback_lag_seconds",
            "Age in seconds of the oldest usage event of today in this proxy's spool that no decision counts yet.",
            self._feedback_lag_s,
        )

    async def _feedback_lag_s(self) -> float:
        now = self._clock()
        awaited = self._days.oldest_awaited(now.date())
        lag_s = 0.0
        for file in (*self.older_files, self.spool.file):
            if file.instance in awaited:  # a row that went uncounted because the spool was full: the next one tells
                spooled = await file.rows(awaited[file.instance], 1, spool_file.spooled_at)
                lag_s = max([lag_s, *((now - at).total_seconds() for at in spooled)])
        return lag_s

    def background(self) -> Mapping[str, Callable[[], Any]]:
        """Return the coroutines that run as long as the process, by the names of these loops."""
        running = {"the spool's upkeep": self.spool.maintain, "the limits' upkeep": self._tidy}
        if isinstance(self._windows, SharedWindows):
            running["the shared rate windows"] = self._windows.keep
        return running

    async def close(self) -> None:
        """Close connections and files; requests have ended."""
        try:
            await self._upstreams.close()
        finally:
            self.spool.close()
            for file in self.older_files:
                file.close()
            self._slots.close()

    def _restore(self, event: UsageEvent) -> None:
        tokens = event.tokens.input_tokens + event.tokens.output_tokens
        day = event.timestamp.date()
        producer = event.producer
        self._days.restore(event.charged_groups, event.model_slug, day, producer.instance, producer.sequence, tokens)

    async def _tidy(self) -> None:
        while True:
            loops.turned(rest_s=_TIDY_EVERY_S)
            await asyncio.sleep(_TIDY_EVERY_S)
            self._windows.forget_idle()
            self._days.forget(self._clock().date() - _KEPT_DAYS)


def _providers(settings: Settings, deadlines: Deadlines, clock: Clock) -> Providers:
    upstreams = Upstreams(
        deadlines,
        allow_private=settings.allow_private_upstreams,
        connect_timeout_s=settings.upstream_connect_timeout_s,
        read_timeout_s=max(settings.upstream_first_byte_timeout_s, settings.upstream_idle_timeout_s),
    )
    return Providers(
        upstreams,
        AccessTokens(settings.vertex_token_url),
        default_max_tokens=settings.anthropic_max_tokens,
        now_s=lambda: clock().timestamp(),
    )


def _windows(settings: Settings) -> MemoryWindows | SharedWindows:
    where = shared_windows.place(settings)
    return MemoryWindows() if where is None else SharedWindows(where, settings.redis_key_prefix)


def _drains(settings: Settings) -> Drains:
    most = settings.drain_max if settings.on_disconnect is OnDisconnect.DRAIN else 0
    return Drains(settings.drain_seconds, most, settings.share_in_flight)


def _shares(settings: Settings) -> WorkspaceShares:
    return WorkspaceShares(
        shares.Shares(settings.max_in_flight, settings.share_in_flight),
        shares.Shares(settings.max_answer_bytes, settings.share_answers),
        ReadingRates(settings.parse_bytes_per_s, _LARGEST_AT_ONCE * settings.max_body_bytes, time.monotonic),
    )


def _places(settings: Settings) -> targets.ProviderUrls:
    operators = settings.baseten_api_key
    return targets.ProviderUrls(
        openai=settings.openai_base_url,
        baseten=settings.baseten_url_template,
        baseten_model=settings.baseten_model_url_template,
        baseten_model_api=settings.baseten_model_api_url,
        baseten_credential=None if operators is None else operators.get_secret_value(),
        anthropic=settings.anthropic_base_url,
        vertex=settings.vertex_base_url,
    )
