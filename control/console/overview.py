"""The page a lab begins at: today beside the same weekday of last week and the last 30 days, and what needs a look."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from typing import Any, NamedTuple

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from sqlalchemy import Connection

from control.api.common import AtDesk, ManagementRequest
from control.console import pages
from control.console.sign_in import AtPages
from control.flow import usage
from control.flow.usage import Sums
from control.store import requests
from control.store.groups import SqlGroups
from control.store.requests import RequestTally
from metering.core.consumed import Consumed
from metering.core.sums import DailyIncrement
from metering.store import consumption, transaction
from metering.store.consumption import UsageQuery
from metering.store.pages import EventQuery, Order, PageStart, newest
from runtime.clock import Steady
from schemas.api import LimitUsage
from schemas.money import Dimension
from schemas.monitoring.requests import RequestRecord
from webhooks.store import pages as deliveries
from webhooks.store.pages import Undelivered

_WEEK, _LAST = timedelta(days=7), timedelta(days=29)
_LARGEST = 8
"""How many models and customers are listed, those with the most requests of today."""
_LOOKED_AT = 50
"""Of how many customers the limits are looked at, those with the most requests of today."""
_NEAR = 80
_LISTED = 8
_TIMED = 200
"""The latency is that of the newest so many calls of today."""
FRESH_S = 600.0
MOST_KEPT = 100_000
_LONG_S = 0.05
_NOTHING = DailyIncrement()

ModelDays = Mapping[tuple[date, str], DailyIncrement]
"""Sums by day and model."""


class Bar(NamedTuple):
    """One day of the chart."""

    day: date
    figures: DailyIncrement


@dataclass(frozen=True, slots=True)
class Compared:
    """One model or customer: today, the same weekday of last week, and all days of the chart."""

    name: str
    group_id: str | None
    today: DailyIncrement
    week_ago: DailyIncrement
    month: DailyIncrement
    errors: int


class NearlyUsedLimit(NamedTuple):
    """A usage limit of which much is used."""

    share: int
    customer: str
    group_id: str
    slug: str
    limit: LimitUsage


class Latency(NamedTuple):
    """How long the newest calls took, in milliseconds."""

    calls: int
    median_ms: int
    p95_ms: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows."""

    bars: Sequence[Bar]
    week_ago: DailyIncrement
    models: Sequence[Compared]
    customers: Sequence[Compared]
    near: Sequence[NearlyUsedLimit]
    failed: Sequence[RequestRecord]
    errors: int
    latency: Latency | None
    undelivered: Undelivered


class PastDays:
    """The sums of the days before today by day and model; a workspace's are read again once they are FRESH_S old.

    They change where an event comes late or is corrected. Only what takes long to read is kept, within MOST_KEPT sums.
    """

    def __init__(self, steady: Steady = time.monotonic) -> None:
        self._steady = steady
        self._kept: dict[str, tuple[float, date, ModelDays]] = {}

    def read(self, connection: Connection, workspace_id: str, today: date) -> ModelDays:
        """Return the sums of the chart's days before `today`."""
        began_s = self._steady()
        known = self._kept.get(workspace_id)
        if known is not None and known[1] == today and began_s - known[0] < FRESH_S:
            return known[2]
        found = _by_model(connection, workspace_id, today - _LAST, today - timedelta(days=1))
        self._kept.pop(workspace_id, None)
        if self._steady() - began_s > _LONG_S and len(found) <= MOST_KEPT:
            self._kept[workspace_id] = began_s, today, found
            while sum(len(sums) for _, _, sums in self._kept.values()) > MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
        return found


AtPastDays = NamedDependency[PastDays]


class OverviewController(Controller):
    """``/console/overview``."""

    path = "/overview"

    @get()
    async def show(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, past_days: AtPastDays
    ) -> Response[str]:
        """Show today."""
        now, workspace_id = desk.clock(), request.auth.workspace_id
        found = await desk.look(request.auth, lambda connection: overview(connection, workspace_id, now, past_days))
        today = now.date()
        return templates.page(request, "overview.html", found=found, today=today, weekday=f"{today:%A}")


def overview(connection: Connection, workspace_id: str, now: datetime, past_days: PastDays) -> Overview:
    """Return what a workspace did up to `now`, from daily usage, kept requests and deliveries."""
    today = now.date()
    midnight = datetime.combine(today, clock_time(), UTC)
    tallies = requests.tallies(connection, workspace_id, midnight)
    days = {**past_days.read(connection, workspace_id, today), **_by_model(connection, workspace_id, today, today)}
    by_group = [Dimension.GROUP, Dimension.CUSTOMER]
    busiest = consumption.largest(connection, UsageQuery(today, today, by_group, workspace_id), _LOOKED_AT)
    bars = _bars(days, today)
    return Overview(
        bars=bars,
        week_ago=next(bar.figures for bar in bars if bar.day == today - _WEEK),
        models=_models(days, today, tallies),
        customers=_customers(connection, workspace_id, today, tallies, busiest[:_LARGEST]),
        near=_near(connection, [row.place[1] for row in busiest], today),
        failed=requests.newest(connection, workspace_id, now - timedelta(hours=1), _LISTED),
        errors=sum(tally.requests for tally in tallies),
        latency=_latency(connection, workspace_id, midnight, now),
        undelivered=deliveries.undelivered(connection, workspace_id),
    )


def _by_model(connection: Connection, workspace_id: str, first: date, last: date) -> ModelDays:
    query = UsageQuery(first, last, [Dimension.DAY, Dimension.MODEL], workspace_id)
    with consumption.consumed(connection, query) as rows:
        return {(row.place[1], row.place[2]): row.figures for row in rows}


def _bars(days: ModelDays, today: date) -> list[Bar]:
    sums = {today - _LAST + timedelta(days=each): _NOTHING for each in range(_LAST.days + 1)}
    for (day, _), figures in days.items():
        sums[day] = _added(sums[day], figures)
    return [Bar(day, figures) for day, figures in sums.items()]


def _models(days: ModelDays, today: date, tallies: Sequence[RequestTally]) -> list[Compared]:
    """Return the models with the most requests of today, and of the last 30 days where today has none."""
    month: dict[str, DailyIncrement] = {}
    for (_, slug), figures in days.items():
        month[slug] = _added(month.get(slug, _NOTHING), figures)
    of_today = {slug: figures for (day, slug), figures in days.items() if day == today}
    shown = sorted((of_today or month).items(), key=lambda item: (-item[1].requests, item[0]))[:_LARGEST]
    return [
        Compared(
            name=slug,
            group_id=None,
            today=of_today.get(slug, _NOTHING),
            week_ago=days.get((today - _WEEK, slug), _NOTHING),
            month=month[slug],
            errors=sum(tally.requests for tally in tallies if tally.model_slug == slug),
        )
        for slug, _ in shown
    ]


def _customers(
    connection: Connection,
    workspace_id: str,
    today: date,
    tallies: Sequence[RequestTally],
    of_today: Sequence[Consumed],
) -> list[Compared]:
    """Return the largest of today, and of the last 30 days where today has none."""

    def largest(first: date, last: date, among: Sequence[str] | None = None) -> Mapping[str, Consumed]:
        query = UsageQuery(first, last, [Dimension.GROUP, Dimension.CUSTOMER], workspace_id)
        return {row.place[1]: row for row in consumption.largest(connection, query, _LARGEST, among)}

    def figures(found: Mapping[str, Consumed], id_: str) -> DailyIncrement:
        return found[id_].figures if id_ in found else _NOTHING

    known = {row.place[1]: row for row in of_today}
    shown = known or largest(today - _LAST, today)
    week_ago, month = (
        largest(first, last, list(shown)) for first, last in ((today - _WEEK, today - _WEEK), (today - _LAST, today))
    )
    return [
        Compared(
            name=row.place[-1],
            group_id=id_,
            today=figures(known, id_),
            week_ago=figures(week_ago, id_),
            month=figures(month, id_),
            errors=sum(tally.requests for tally in tallies if tally.group_id == id_),
        )
        for id_, row in shown.items()
    ]


def _added(one: DailyIncrement, other: DailyIncrement) -> DailyIncrement:
    return DailyIncrement(*(mine + theirs for mine, theirs in zip(one, other, strict=True)))


def _near(connection: Connection, busiest: Sequence[str], today: date) -> list[NearlyUsedLimit]:
    """Return the limits of which most is used, of the customers with the most requests of today."""
    chains = SqlGroups(connection).chains(busiest)
    every = {group.record.id for chain in chains for group in chain}
    read: dict[tuple[date, date], Sums] = {}

    def find(_: Any, first: date, last: date) -> Sums:
        if (first, last) not in read:
            read[first, last] = transaction.limit_totals(connection, every, first, last)
        return read[first, last]

    near: dict[tuple[Any, ...], NearlyUsedLimit] = {}
    for chain in chains:
        record = chain[0].record
        for slug, limits in usage.usage(chain, find, today).usage.items():
            for limit in limits:
                share = pages.share(limit.current_usage, limit.threshold)
                one = limit.source_group, slug, limit.type, limit.unit, limit.current_usage  # shared along a tree
                if share >= _NEAR:
                    near.setdefault(one, NearlyUsedLimit(share, record.external_entity_id, record.id, slug, limit))
    return sorted(near.values(), key=lambda each: -each.share)[:_LISTED]


def _latency(connection: Connection, workspace_id: str, midnight: datetime, now: datetime) -> Latency | None:
    window = EventQuery(workspace_id, Order.TIMESTAMP, PageStart(midnight, ""), now)
    entries = newest(connection, window, None, _TIMED)
    took = sorted(entry.event.latency_ms for entry in entries if entry.event.latency_ms is not None)
    if not took:
        return None
    return Latency(len(took), took[(len(took) - 1) // 2], took[(len(took) * 95 - 1) // 100])
