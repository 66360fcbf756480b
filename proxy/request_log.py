"""Tells of each request that was refused or failed: a line in the log, and a record to find it by (contract 2.5, 6).

What is beyond what the log and the records can take is counted. Of a prompt or an answer nothing is told. A plain
request that was complete costs two comparisons.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from urllib.parse import urlsplit

from proxy import tally
from proxy.call import Call
from proxy.core.calls import Key
from proxy.core.endings import Ending, Refused
from proxy.core.replies import Reply
from proxy.tally import Tally
from runtime import ids
from runtime.deadlines import Deadlines
from runtime.shares import Rates
from runtime.telemetry import logs
from runtime.telemetry.metrics import Telemetry
from schemas.monitoring.requests import RequestEnd, RequestRecord
from schemas.usage import Outcome

LINES_PER_S, LINES_OF_WORKSPACE = 1000, 200
"""Lines in a second: of all, and of one workspace; those without a key are one workspace."""
TOLD_PER_S, TOLD_OF_WORKSPACE = 100, 20
"""The same of records."""
MOST_WAITING = 10_000
"""Records that wait to be taken; the oldest give way."""

_ALL = _NOBODY = ""
_COMPLETE = "complete"
_CLIENT_GONE, _BEGUN, _LOWEST_ERROR, _UNAUTHORIZED, _FAULT = 0, 200, 400, 401, 500
_NOT_FOUND = 404
_DETAIL_SHOWN = 1024
_PLACES = {outcome: tally.place(outcome.value) for outcome in Outcome}
_COMPLETE_PLACE, _FAILED, _REFUSED = (tally.place(outcome) for outcome in (_COMPLETE, "failed", "refused"))

log = logging.getLogger("tollgate.requests")


class _Bounds:
    """How many a second there may be, of one workspace and in all."""

    def __init__(self, of_all: int, of_workspace: int, now_s: Callable[[], float]) -> None:
        self._all = Rates(of_all, of_all, now_s)
        self._workspaces = Rates(of_workspace, of_workspace, now_s)
        self.left_out = 0

    def take(self, workspace_id: str) -> bool:
        if self._workspaces.has(workspace_id, 1) and self._all.has(_ALL, 1):
            self._workspaces.use(workspace_id, 1)
            self._all.use(_ALL, 1)
            return True
        self.left_out += 1
        return False


class RequestLog:
    """The requests of one proxy."""

    def __init__(
        self,
        instance: str,
        deadlines: Deadlines,
        *,
        takes_all: bool,
        on_ended: Callable[[Call, Ending], None] | None = None,
    ) -> None:
        """`takes_all`: complete requests have a line too; `on_ended` hears of each call that was admitted."""
        self._on_ended = on_ended
        self.tally = Tally()
        self._instance = instance
        self._deadlines = deadlines
        self._takes_all = takes_all
        self._lines = _Bounds(LINES_PER_S, LINES_OF_WORKSPACE, self._now_s)
        self._told = _Bounds(TOLD_PER_S, TOLD_OF_WORKSPACE, self._now_s)
        self._waiting: deque[RequestRecord] = deque()
        self._said = 0

    def refused(self, reply: Reply, request_id: str, key: Key | None, begun_s: float) -> None:
        """Tell of an answer to a request that was not admitted; `begun_s`: infinite where nothing was waited for."""
        key = key or reply.key
        slug = reply.slug if reply.slug is not None and reply.status != _NOT_FOUND else ""  # any text may be not found
        cell = self.tally.cell(*(("", "") if key is None else (key.workspace_id, key.group_id)), slug)
        is_failed = reply.status == _FAULT or reply.reason.startswith("upstream_")
        record = RequestRecord(
            request_id=request_id,
            at=_moment(request_id),
            ended=RequestEnd.FAILED if is_failed else RequestEnd.REFUSED,
            status=reply.status,
            reason=reply.reason,
            detail=_cut(reply.detail),
            workspace_id=None if key is None else key.workspace_id,
            group_id=None if key is None else key.group_id,
            api_key_prefix=None if key is None else key.prefix,
            model_slug=reply.slug,
            latency_ms=0 if begun_s == math.inf else self._since_ms(begun_s),
            instance=self._instance,
        )
        cell.outcomes[_COMPLETE_PLACE if reply.status < _LOWEST_ERROR else _FAILED if is_failed else _REFUSED] += 1
        if reply.status < _LOWEST_ERROR:  # the upstream's own, to what is not counted
            self._complete(record)
        else:
            self._tell(record)

    def ended(self, call: Call, ending: Ending, key: Key) -> None:
        """Tell of a call that was admitted, unless it is complete and those have no lines."""
        self._count(call, ending)
        if self._on_ended is not None:
            self._on_ended(call, ending)
        if isinstance(ending, Refused) or ending.outcome is not Outcome.COMPLETE:
            self._tell(self._record(call, key, ending))
        elif self._takes_all:
            route = call.route
            logs.say(
                log,
                _COMPLETE,
                request_id=call.request_id,
                workspace=route.workspace_id,
                group=route.group_id,
                slug=route.slug,
                key=key.prefix,
                status=_BEGUN if ending.reply is None else ending.reply.status,
                upstream=_host(route.url),
                ms=self._since_ms(call.started_s),
            )

    def take(self) -> list[RequestRecord]:
        """Return the records that wait, which the caller keeps from now on."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def say_what_was_left_out(self) -> None:
        """Say in one line how many had no line of their own since the last time."""
        if self._lines.left_out > self._said:
            log.warning("%d more requests were refused or failed, without a line", self._lines.left_out - self._said)
            self._said = self._lines.left_out

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show how many are counted alone."""
        self.tally.register_metrics(telemetry)
        telemetry.counter(
            "tollgate_requests_untold_total",
            "Refused and failed requests beyond the bound a second, by what they lack: a line in the log or a record.",
            lambda: {"line": self._lines.left_out, "record": self._told.left_out},
            "what",
        )

    def _count(self, call: Call, ending: Ending) -> None:
        route, now_s, started_s = call.route, self._now_s(), call.started_s
        cell = self.tally.cell(route.workspace_id, route.group_id, route.slug)
        cell.outcomes[_FAILED if isinstance(ending, Refused) else _PLACES[ending.outcome]] += 1
        cell.whole.observe(now_s - started_s)
        if call.first_byte_s is not None:
            cell.first_byte.observe(call.first_byte_s - started_s)
        if call.ended_s:
            cell.own.observe(started_s - call.begun_s + now_s - call.ended_s)

    def _tell(self, record: RequestRecord) -> None:
        holder = record.workspace_id or _NOBODY
        if self._lines.take(holder):
            _say(record.ended.value, record)
        if self._told.take(holder):
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self._told.left_out += 1
            # one that was refused with 401 belongs to no workspace
            is_owned = record.status != _UNAUTHORIZED
            self._waiting.append(record if is_owned else record.model_copy(update={"workspace_id": None}))

    def _complete(self, record: RequestRecord) -> None:
        if self._takes_all:
            _say(_COMPLETE, record)

    def _record(self, call: Call, key: Key, ending: Ending) -> RequestRecord:
        route, first_byte_s = call.route, call.first_byte_s
        status, reason, detail = _said(call, ending)
        return RequestRecord(
            request_id=call.request_id,
            at=_moment(call.request_id),
            ended=RequestEnd.FAILED,
            status=status,
            reason=reason,
            detail=_cut(detail),
            workspace_id=route.workspace_id,
            group_id=route.group_id,
            api_key_prefix=key.prefix,
            model_slug=route.slug,
            route=route.name,
            upstream=_host(route.url),
            by_operator=route.by_operator,
            latency_ms=self._since_ms(call.started_s),
            first_byte_ms=None if first_byte_s is None else round((first_byte_s - call.started_s) * 1000),
            is_billed=not isinstance(ending, Refused),
            instance=self._instance,
        )

    def _now_s(self) -> float:
        return self._deadlines.loop.time()

    def _since_ms(self, since_s: float) -> int:
        return round((self._now_s() - since_s) * 1000)


def _said(call: Call, ending: Ending) -> tuple[int, str, str | None]:
    """Return the status, reason and detail of a call that was not complete."""
    reply = ending.reply
    if isinstance(ending, Refused):
        return ending.reply.status, ending.reply.reason, ending.reply.detail
    if ending.outcome is Outcome.UPSTREAM_ERROR and reply is not None and reply.is_error:
        return reply.status, reply.reason, reply.detail
    has_begun = call.stream is not None or ending.outcome is not Outcome.CLIENT_DISCONNECTED
    status = _BEGUN if reply is None else reply.status
    return status if has_begun else _CLIENT_GONE, ending.outcome.value, None


def _say(message: str, record: RequestRecord) -> None:
    logs.say(
        log,
        message,
        request_id=record.request_id,
        workspace=record.workspace_id,
        group=record.group_id,
        slug=record.model_slug,
        key=record.api_key_prefix,
        status=record.status,
        reason=None if message == _COMPLETE else record.reason,
        detail=record.detail,
        upstream=record.upstream,
        ms=record.latency_ms,
    )


@lru_cache(1024)
def _host(url: str) -> str | None:
    return urlsplit(url).hostname


def _cut(detail: str | None) -> str | None:
    return None if detail is None else detail[:_DETAIL_SHOWN]


def _moment(request_id: str) -> datetime:
    return ids.moment_of(request_id) or ids.EPOCH
