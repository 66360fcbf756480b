"""`tollgate usage`: what was used in a month, and what it costs (contract 6)."""

import csv
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from control.core import usage_csv, usage_lines
from control.core.usage_lines import Books
from control.flow import prices as flow
from control.flow import workspaces
from control.store.groups import SqlGroups
from control.store.prices import SqlPriceLists
from control.store.workspaces import SqlWorkspaces
from domain.costs import PriceBook
from metering.core.consumed import Consumed
from metering.store import consumption
from metering.store.consumption import UsageQuery
from schemas.money import Dimension, Prices, UsageLine
from tollgate.cli import commands, terminal
from tollgate.cli.commands import Where

_Named = tuple[str, UsageLine]
"""A line and the name of its workspace."""


class _Dimensions(click.ParamType):
    """Reads a comma list of dimensions."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Dimension]:
        """Return the dimensions in their order."""
        words = [word for word in str(value).split(",") if word]
        known = [dimension.value for dimension in Dimension]
        if len(set(words)) < len(words) or not set(words) <= set(known):
            self.fail(f"some of {', '.join(known)} are allowed, each once, with commas between", param, ctx)
        return [Dimension(word) for word in words]


_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option("--month", type=click.DateTime(["%Y-%m"]), help="A whole UTC month, as 2026-11.")
@click.option("--from", "from_", type=_DAY, help="The first UTC day, as 2026-11-01.  [default: today]")
@click.option("--to", type=_DAY, help="The last UTC day, inclusive.  [default: today]")
@click.option(
    "--by",
    type=_Dimensions(),
    default="customer,model",
    show_default=True,
    help="What lines are told apart by: some of day, customer, model, group, key.",
)
@click.option("--workspace", "workspace_name", help="Its name or id.  [default: every workspace]")
@click.option(
    "--prices",
    "prices_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file of [[prices]], for every workspace, in place of those that labs have set.",
)
@click.option("--tree", is_flag=True, help="Add the use of each group to the lines of its parents too.")
@click.option("--format", "kind", type=click.Choice(["table", "csv"]), default="table", show_default=True)
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def usage(
    *,
    month: datetime | None,
    from_: datetime | None,
    to: datetime | None,
    by: list[Dimension],
    workspace_name: str | None,
    prices_file: Path | None,
    tree: bool,
    kind: str,
    where: Where,
    as_json: bool,
) -> None:
    """Print sums of requests and tokens, corrections apart, and what they cost.

    Amounts contain the corrections and are rounded half-even once, at the line; a line by model is cut where its price
    changes. For example: tollgate usage --month 2026-11 --by customer,model
    """
    first, last = _days(month, from_, to)
    if tree and not {Dimension.CUSTOMER, Dimension.GROUP} & set(by):
        raise click.UsageError("--tree needs customer or group in --by")
    given = None if prices_file is None else _read_prices(prices_file)
    with commands.opened(where) as place:

        def show(connection: Connection) -> None:
            flow.check_days(first, last)
            found = SqlWorkspaces(connection)
            one = None if workspace_name is None else workspaces.get(found, workspace_name).id
            names = {record.id: record.name for record in found.every()}
            books = _books(connection, names, given)
            lines = _lines(connection, UsageQuery(first, last, by, one), books, tree=tree)
            _print(by, ((names.get(id_, id_), line) for id_, line in lines), kind="json" if as_json else kind)

        place.read(show)


def _days(month: datetime | None, from_: datetime | None, to: datetime | None) -> tuple[date, date]:
    if month is not None:
        if from_ or to:
            raise click.UsageError("--month cannot be combined with --from and --to")
        following = (month + timedelta(days=31)).replace(day=1)
        return month.date(), (following - timedelta(days=1)).date()
    today = datetime.now(UTC).date()
    return from_.date() if from_ else today, to.date() if to else today


def _read_prices(path: Path) -> Prices:
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        if set(read) - {"prices"}:
            raise click.ClickException(f"{path}: only [[prices]] may stand there")
        return Prices.model_validate(read.get("prices", []))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise click.ClickException(f"{path}: prices.{field}: {problem['msg']}") from None
    except (OSError, ValueError) as error:  # tomllib's errors are ValueErrors
        raise click.ClickException(f"{path}: {error}") from None


def _books(connection: Connection, names: Mapping[str, str], given: Prices | None) -> Books:
    if given is not None:
        book = PriceBook(given.root)
        return dict.fromkeys(names, book)
    return {id_: PriceBook(prices.root) for id_, prices in SqlPriceLists(connection).every().items()}


def _lines(connection: Connection, query: UsageQuery, books: Books, *, tree: bool) -> Iterator[tuple[str, UsageLine]]:
    wanted = UsageQuery(
        query.first, query.last, query.by, query.workspace_id, priced=any(books.values()), by_group=tree
    )
    with consumption.consumed(connection, wanted) as found:
        rows: Iterable[Consumed] = found
        if tree:
            rows = usage_lines.along_tree(rows, query.by, SqlGroups(connection).ways(query.workspace_id))
        for place, line in usage_lines.lines(rows, query.by, books):
            yield place[0], line


def _print(by: Sequence[Dimension], lines: Iterator[_Named], *, kind: str) -> None:
    if kind == "json":
        shown = (
            json.dumps({"workspace": name, **line.model_dump(mode="json", exclude_unset=True)}) for name, line in lines
        )
        commands.print_list(shown, "", as_json=True)
    elif kind == "csv":
        columns = usage_csv.columns(by)
        writer = csv.writer(sys.stdout)
        writer.writerow(("workspace", *columns))
        writer.writerows((terminal.safe(name), *usage_csv.cells(columns, line)) for name, line in lines)
    else:
        _print_table(by, list(lines))


def _print_table(by: Sequence[Dimension], lines: Sequence[_Named]) -> None:
    if not lines:
        click.echo("No usage in these days.", err=True)
        return
    names = usage_csv.columns(by)
    table = Table(box=None, pad_edge=False)
    for column in ("workspace", *names):
        table.add_column(
            column.replace("_", " "), justify="right" if column in usage_csv.SUMS else "left", no_wrap=True
        )
    for name, line in lines:
        cells = [_shown(cell) for cell in usage_csv.cells(names, line)]
        table.add_row(terminal.safe(name), *cells)
    width = None if sys.stdout.isatty() else 1000
    Console(markup=False, highlight=False, width=width).print(table)


def _shown(cell: object) -> str:
    if isinstance(cell, int):
        return f"{cell:,}"
    return "-" if cell is None else terminal.safe(str(cell))
