"""The page a lab begins at: today beside the same weekday of last week and the last 30 days, and what needs a look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from litestar import Controller, Response, get
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
_NOTHING = DailyIncrement()


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


class OverviewController(Controller):
    """``/console/overview``."""

    path = "/overview"

    @get()
    async def show(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[str]:
        """Show today."""
        now, workspace_id = desk.clock(), request.auth.workspace_id
        found = await desk.look(request.auth, lambda connection: overview(connection, workspace_id, now))
        today = now.date()
        return templates.page(request, "overview.html", found=found, today=today, weekday=f"{today:%A}")


def overview(connection: Connection, workspace_id: str, now: datetime) -> Overview:
    """Return what a workspace did up to `now`, from daily usage, kept requests and deliveries."""
    today = now.date()
    midnight = datetime.combine(today, time(), UTC)
    tallies = requests.tallies(connection, workspace_id, midnight)
    bars = _bars(connection, workspace_id, today)
    return Overview(
        bars=bars,
        week_ago=next(bar.figures for bar in bars if bar.day == today - _WEEK),
        models=_compared(connection, workspace_id, today, [Dimension.MODEL], tallies),
        customers=_compared(connection, workspace_id, today, [Dimension.GROUP, Dimension.CUSTOMER], tallies),
        near=_near(connection, workspace_id, today),
        failed=requests.newest(connection, workspace_id, now - timedelta(hours=1), _LISTED),
        errors=sum(tally.requests for tally in tallies),
        latency=_latency(connection, workspace_id, midnight, now),
        undelivered=deliveries.undelivered(connection, workspace_id),
    )


def _bars(connection: Connection, workspace_id: str, today: date) -> list[Bar]:
    query = UsageQuery(today - _LAST, today, [Dimension.DAY], workspace_id)
    with consumption.consumed(connection, query) as rows:
        figures = {row.place[1]: row.figures for row in rows}
    days = [today - _LAST + timedelta(days=each) for each in range(_LAST.days + 1)]
    return [Bar(day, figures.get(day, _NOTHING)) for day in days]


def _compared(
    connection: Connection, workspace_id: str, today: date, by: Sequence[Dimension], tallies: Sequence[RequestTally]
) -> list[Compared]:
    """Return the largest of today, and of the last 30 days where today has none."""

    def largest(first: date, last: date, among: Sequence[str] | None = None) -> Mapping[str, Consumed]:
        query = UsageQuery(first, last, by, workspace_id)
        return {row.place[1]: row for row in consumption.largest(connection, query, _LARGEST, among)}

    shown = largest(today, today) or largest(today - _LAST, today)
    of_today, week_ago, month = (
        largest(first, last, list(shown))
        for first, last in ((today, today), (today - _WEEK, today - _WEEK), (today - _LAST, today))
    )
    is_model = by[0] is Dimension.MODEL

    def errors(name: str) -> int:
        return sum(tally.requests for tally in tallies if (tally.model_slug if is_model else tally.group_id) == name)

    def figures(found: Mapping[str, Consumed], name: str) -> DailyIncrement:
        return found[name].figures if name in found else _NOTHING

    return [
        Compared(
            name=row.place[-1],
            group_id=None if is_model else id_,
            today=figures(of_today, id_),
            week_ago=figures(week_ago, id_),
            month=figures(month, id_),
            errors=errors(id_),
        )
        for id_, row in shown.items()
    ]


def _near(connection: Connection, workspace_id: str, today: date) -> list[NearlyUsedLimit]:
    """Return the limits of which most is used, of the customers with the most requests of today."""
    query = UsageQuery(today, today, [Dimension.GROUP], workspace_id)
    busiest = [row.place[1] for row in consumption.largest(connection, query, _LOOKED_AT)]
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
