"""`tollgate export`: days of the ledger as a file for finance (contract 6).

A day that is not over is exported as it stands.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import click
from sqlalchemy import Connection

from control.store.workspaces import SqlWorkspaces
from metering.store import pages
from metering.store.pages import LedgerEntry
from tollgate.cli import commands, progress
from tollgate.cli.commands import Where
from tollgate.reports import exports

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option("--day", type=_DAY, help="One UTC day, as 2026-01-31.")
@click.option("--from", "from_", type=_DAY, help="In place of --day: the first UTC day.")
@click.option("--to", type=_DAY, help="The last UTC day, inclusive.  [default: today]")
@click.option("--format", "kind", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file; CSV goes to stdout without it.")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object; needs --out.")
def export(
    *,
    day: datetime | None,
    from_: datetime | None,
    to: datetime | None,
    kind: str,
    out: Path | None,
    where: Where,
    as_json: bool,
) -> None:
    """Write every event of some UTC days, of all workspaces, with corrections as rows of their own.

    For example: tollgate export --from 2026-11-01 --to 2026-11-30 --format parquet --out november.parquet
    """
    first, last = _days(day, from_, to)
    asked = {"day": str(first)} if day else {"from": str(first), "to": str(last)}
    named = str(first) if first == last else f"{first} to {last}"
    if out is None and (kind == "parquet" or as_json):
        raise click.UsageError("--format parquet and --json need --out")
    with commands.opened(where) as place, progress.bar(prints_meanwhile=out is None) as shown:
        task = shown.add_task(f"events of {named}", total=None)

        def counted(entries: Iterable[LedgerEntry]) -> Iterator[LedgerEntry]:
            for entry in entries:
                yield entry
                shown.advance(task)

        def write(connection: Connection) -> int:
            entries = counted(pages.days(connection, first, last))
            return _written(connection, entries, out, kind)

        try:
            count = place.read(write)
        except (exports.MissingLibraryError, OSError) as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps({**asked, "format": kind, "out": str(out), "events": count}))
    else:
        _say(count, named, out)


def _written(connection: Connection, entries: Iterable[LedgerEntry], out: Path | None, kind: str) -> int:
    names = {one.id: one.name for one in SqlWorkspaces(connection).every()}
    if out and kind == "parquet":
        return exports.write_parquet(entries, out, names)
    return exports.write_csv(entries, out, names)


def _say(count: int, named: str, out: Path | None) -> None:
    if out is not None:
        click.echo(f"{count:,} events of {named} in {out}")
    elif not count:
        click.echo(f"No events of {named}.", err=True)


def _days(day: datetime | None, from_: datetime | None, to: datetime | None) -> tuple[date, date]:
    if (day is None) == (from_ is None) or (day is not None and to is not None):
        raise click.UsageError("either --day, or --from with or without --to")
    first = day or from_ or datetime.now(UTC)
    last = (first if day else to or datetime.now(UTC)).date()
    if last < first.date():
        raise click.UsageError("--to must not be before --from")
    return first.date(), last
