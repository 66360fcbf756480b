"""Routes of usage and prices (contract 2.5)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from enum import StrEnum
from functools import partial
from itertools import dropwhile, groupby, islice
from operator import itemgetter
from typing import Annotated, Any, NamedTuple

from litestar import Controller, get, put
from litestar.params import FromQuery, JSONBody, QueryParameter
from sqlalchemy import Connection

from control.api import common, errors, paging
from control.api.common import AtDesk, CsvUsage, Limit, ManagementRequest
from control.api.openapi import examples
from control.api.openapi.description import ALSO_CSV
from control.core import usage_lines
from control.core.refusals import InvalidError
from control.core.usage_csv import written
from control.flow import prices as flow
from control.store.prices import SqlPriceLists
from domain.costs import PriceBook
from metering.core.consumed import GroupingKey
from metering.store import consumption
from metering.store.consumption import UsageQuery
from schemas.api import Page
from schemas.money import Dimension, Prices, UsageLine

MOST_CSV_LINES = 100_000
"""Of one CSV: it has no pages."""


class UsageFormat(StrEnum):
    """How usage is written."""

    JSON = "json"
    CSV = "csv"


class AskedUsage(NamedTuple):
    """What usage is asked for: days, both inclusive, and what lines are told apart by; a page's cursor holds it too."""

    place: list[Any]
    """Of the last line of the page before; empty for the first page."""
    shown: int
    """How many lines of that place the page before had."""
    first: date
    last: date
    by: list[Dimension]
    group_id: str | None = None
    """The one group that is asked about; None: all of the workspace."""


def _day(name: str, of: str) -> Any:
    description = f"{of}, a UTC day, as 2026-01-31; without it, today."
    return QueryParameter(name=name, description=description, schema_extra={"format": "date"})


_DIMENSIONS = ", ".join(f"`{dimension}`" for dimension in Dimension)


class UsageController(Controller):
    """``/v1/gateway/usage``."""

    path = "/gateway/usage"
    tags = ("Billing",)

    @get(
        operation_id="get_usage",
        summary="Get sums of usage",
        responses=errors.READ_ERRORS,
        opt={ALSO_CSV: examples.USAGE_AS_CSV},
    )
    async def get_usage(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        *,
        from_: Annotated[str | None, _day("from", "The first day")] = None,
        to: Annotated[str | None, _day("to", "The last day, inclusive")] = None,
        group_by: Annotated[
            str | None, QueryParameter(description=f"What lines are told apart by, with commas: {_DIMENSIONS}.")
        ] = None,
        format_: Annotated[
            UsageFormat | None, QueryParameter(name="format", description="`csv` is all lines in one, without pages.")
        ] = None,
        limit: Limit = common.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
    ) -> Page[UsageLine]:
        """Get how much was used in a stretch of UTC days, and what it costs by the prices that are set now.

        Corrections are apart in their own sums, on the day they were made; amounts contain them, each at the price of
        the event that it corrects. A line by model is cut where its price changes. Newest events may be missing: they
        are counted within seconds.
        """
        first, last = _read_day("from", from_, desk.clock().date()), _read_day("to", to, desk.clock().date())
        asked = AskedUsage([], 0, first, last, _read_dimensions(group_by))
        if cursor is not None:
            asked = resume(cursor, asked, from_=from_, to=to, group_by=group_by)
        flow.check_days(asked.first, asked.last)
        workspace_id, as_csv = request.auth.workspace_id, format_ is UsageFormat.CSV

        def read(connection: Connection) -> Page[UsageLine]:
            if as_csv:
                return CsvUsage.of(csv_of(connection, workspace_id, asked))
            with lines_of(connection, workspace_id, asked) as found:
                return paging.filled(found, limit, lambda each: each.line, partial(cursor_behind, asked))

        return await desk.look(request.auth, read)


class PriceController(Controller):
    """``/v1/gateway/prices``."""

    path = "/gateway/prices"
    tags = ("Billing",)

    @get(operation_id="get_prices", summary="Get the prices", responses=errors.READ_ERRORS)
    async def get_prices(self, request: ManagementRequest, desk: AtDesk) -> Prices:
        """Get all prices of the workspace."""
        caller = request.auth
        return await desk.look(caller, lambda view: desk.unit(view, caller).prices.find(caller.workspace_id))

    @put(status_code=200, operation_id="set_prices", summary="Set the prices", responses=errors.WRITE_ERRORS)
    async def set_prices(self, request: ManagementRequest, desk: AtDesk, data: JSONBody[Prices]) -> Prices:
        """Set all prices of the workspace in place of those before; an empty list takes all away.

        Usage is priced when it is asked for: to keep what past days cost, send their prices again beside a new one.
        """
        return await desk.change(request.auth, lambda unit: flow.save(unit, data))


def csv_of(connection: Connection, workspace_id: str, asked: AskedUsage) -> str:
    """Return all lines as one CSV. Raise InvalidError where they are more than it may hold."""
    with lines_of(connection, workspace_id, asked) as found:
        lines = [each.line for each in islice(found, MOST_CSV_LINES + 1)]
    if len(lines) > MOST_CSV_LINES:
        message = f"format: a CSV holds at most {MOST_CSV_LINES} lines; ask for fewer days or a coarser group_by"
        raise InvalidError(message, param="format", code="invalid_query")
    return written(asked.by, lines)


class FoundLine(NamedTuple):
    """A line, the place that it is of, and its number among those of its place, from 1."""

    place: GroupingKey
    number: int
    line: UsageLine


@contextmanager
def lines_of(connection: Connection, workspace_id: str, asked: AskedUsage) -> Iterator[Iterator[FoundLine]]:
    """Return the lines behind the cursor, as they are read."""
    book = PriceBook(SqlPriceLists(connection).find(workspace_id).root)
    start = (workspace_id, *asked.place) if asked.shown else None
    query = UsageQuery(
        asked.first, asked.last, asked.by, workspace_id, priced=bool(book), start=start, group_id=asked.group_id
    )
    with consumption.consumed(connection, query) as rows:
        lines = _numbered(usage_lines.lines(rows, asked.by, {workspace_id: book}))
        yield dropwhile(lambda found: found.place == start and found.number <= asked.shown, lines)


def _numbered(lines: Iterable[tuple[GroupingKey, UsageLine]]) -> Iterator[FoundLine]:
    for place, of_it in groupby(lines, key=itemgetter(0)):
        yield from (FoundLine(place, number, line) for number, (_, line) in enumerate(of_it, 1))


def cursor_behind(asked: AskedUsage, last: "FoundLine") -> str:
    """Return the cursor of the page behind a line."""
    return common.cursor_of(asked._replace(place=list(last.place[1:]), shown=last.number))


def resume(cursor: str, asked: AskedUsage, **given: str | None) -> AskedUsage:
    """Return where the page begins. Raise InvalidError where `given` repeats what is not the cursor's."""
    held = common.read_cursor(cursor, AskedUsage)
    same = {"from_": held.first == asked.first, "to": held.last == asked.last, "group_by": held.by == asked.by}
    for name, text in given.items():
        if text is not None and not same[name]:
            param = name.rstrip("_")
            message = f"{param}: is not the one that the cursor belongs to"
            raise InvalidError(message, param=param, code="invalid_cursor")
    kinds = [date if dimension is Dimension.DAY else str for dimension in held.by]
    try:
        place = [
            date.fromisoformat(value) if kind is date else value for kind, value in zip(kinds, held.place, strict=True)
        ]
        fits = all(map(isinstance, place, kinds)) and not any("\0" in str(value) for value in place)
    except (ValueError, TypeError):
        fits = False
    if not fits or held.shown < 1:
        raise common.foreign_cursor()
    return held._replace(place=place)


def _read_day(name: str, text: str | None, today: date) -> date:
    if text is None:
        return today
    try:
        if len(text) == len("2026-01-31"):
            return date.fromisoformat(text)
    except ValueError:
        pass  # said below
    raise InvalidError(f"{name}: must be a UTC day, as 2026-01-31", param=name, code="invalid_query")


def _read_dimensions(text: str | None) -> list[Dimension]:
    words = [] if not text else text.split(",")
    known = [dimension.value for dimension in Dimension]
    if len(set(words)) < len(words) or not set(words) <= set(known):
        message = f"group_by: must be some of {', '.join(known)}, each once, with commas between"
        raise InvalidError(message, param="group_by", code="invalid_query")
    return [Dimension(word) for word in words]
