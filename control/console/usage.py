"""Pages of a month's usage and what it costs, for all customers or for one group, and the same as CSV."""

from datetime import date, timedelta
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Any

from litestar import Controller, Response, get
from litestar.params import FromQuery
from sqlalchemy import Connection

from control.api import usage as api
from control.api.common import AtDesk, Desk, ManagementRequest
from control.api.usage import AskedUsage, FoundLine
from control.auth import Caller
from control.console import pages
from control.console.sign_in import AtPages
from control.core import bodies
from control.core.refusals import InvalidError
from control.flow import groups
from control.flow import prices as flow
from domain import days
from schemas.api import Group
from schemas.limits import UsageLimitUnit
from schemas.money import Dimension, UsageLine

ROWS = 100
_YEARS = range(2000, 3000)


class Grouping(StrEnum):
    """What the lines of a month are told apart by."""

    CUSTOMER_MODEL = "customer,model"
    CUSTOMER = "customer"
    MODEL = "model"
    DAY = "day"
    DAY_MODEL = "day,model"
    KEY = "key"

    @property
    def dimensions(self) -> list[Dimension]:
        """Return it as the API names it."""
        return [Dimension(word) for word in self.value.split(",")]

    @property
    def said(self) -> str:
        """Return it for people."""
        return self.value.replace(",", " and ").capitalize()


class UsagePageController(Controller):
    """``/console/usage``."""

    path = "/usage"

    @get()
    async def show(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        templates: AtPages,
        *,
        month: FromQuery[str] = "",
        by: FromQuery[Grouping] = Grouping.CUSTOMER_MODEL,
        group: FromQuery[str] = "",
        cursor: FromQuery[str] = "",
    ) -> Response[str]:
        """Show one page of a month's lines, and the sums of the whole month."""
        today, caller = desk.clock().date(), request.auth
        asked = _asked(month, today, by, group)
        begun = api.resume(cursor, asked, from_=month, to=month, group_by=by.value) if cursor else asked

        def find(connection: Connection) -> tuple[Group | None, list[UsageLine], list[FoundLine], bool]:
            of = _group(connection, desk, caller, asked.group_id)
            with api.lines_of(connection, caller.workspace_id, asked._replace(by=[])) as sums:
                totals = [each.line for each in sums]
            with api.lines_of(connection, caller.workspace_id, begun._replace(group_id=asked.group_id)) as found:
                lines = list(islice(found, ROWS + 1))
            return of, totals, lines, bool(desk.unit(connection, caller).prices.find(caller.workspace_id).root)

        of, totals, found, priced = await desk.look(caller, find)
        shown, following = pages.cut(found, ROWS, partial(api.cursor_behind, begun))
        return templates.page(
            request,
            "usage.html",
            of=of,
            totals=totals,
            lines=[each.line for each in shown],
            following=following,
            priced=priced,
            by=by,
            groupings=list(Grouping),
            **_months(asked, today),
        )

    @get("/csv")
    async def as_csv(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        *,
        month: FromQuery[str] = "",
        by: FromQuery[Grouping] = Grouping.CUSTOMER_MODEL,
        group: FromQuery[str] = "",
    ) -> Response[str]:
        """Return the whole month as the management API writes it."""
        caller = request.auth
        asked = _asked(month, desk.clock().date(), by, group)

        def find(connection: Connection) -> str:
            _group(connection, desk, caller, asked.group_id)
            return api.csv_of(connection, caller.workspace_id, asked)

        text = await desk.look(caller, find)
        return pages.file(text, "text/csv", f"usage-{_named(asked.first)}-{by.value.replace(',', '-')}.csv")


def _asked(month: str, today: date, by: Grouping, group: str) -> AskedUsage:
    try:
        start, unit = days.read_period(month or _named(today))
    except ValueError:
        start, unit = today, UsageLimitUnit.DAY
    if unit is not UsageLimitUnit.MONTH or start.year not in _YEARS:
        raise InvalidError("month: must be a month, as 2026-01", param="month")
    first, last = days.first_and_last(start, unit)
    flow.check_days(first, last)
    return AskedUsage([], 0, first, last, by.dimensions, group or None)


def _months(asked: AskedUsage, today: date) -> dict[str, Any]:
    following = _named(asked.last + timedelta(days=1)) if asked.last < today else None
    return {"month": _named(asked.first), "before": _named(asked.first - timedelta(days=1)), "after": following}


def _named(day: date) -> str:
    return days.period(day, UsageLimitUnit.MONTH)


def _group(connection: Connection, desk: Desk, caller: Caller, group_id: str | None) -> Group | None:
    """Return the group that is asked about. Raise NotFoundError or ForbiddenError."""
    return bodies.group(groups.get(desk.unit(connection, caller), group_id)) if group_id else None
