"""`tollgate export`: a day of the ledger as a file for finance (contract 6).

Never shows what the ledger may still be writing: a day that is not over is exported as it stands.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy import Connection

from metering.store import pages
from metering.store.pages import Entry
from tollgate.cli import commands, progress
from tollgate.cli.commands import Where
from tollgate.reports import exports


@click.command()
@click.option("--day", required=True, type=click.DateTime(["%Y-%m-%d"]), help="The UTC day, as 2026-01-31.")
@click.option("--format", "kind", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file; CSV goes to stdout without it.")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object; needs --out.")
def export(*, day: datetime, kind: str, out: Path | None, where: Where, as_json: bool) -> None:
    """Write every event of a UTC day, of all workspaces, with corrections as rows of their own."""
    wanted = day.date()
    if out is None and (kind == "parquet" or as_json):
        raise click.UsageError("--format parquet and --json need --out")
    with commands.opened(where) as place, progress.bar(prints_meanwhile=out is None) as shown:
        task = shown.add_task(f"events of {wanted}", total=None)

        def counted(entries: Iterable[Entry]) -> Iterator[Entry]:
            for entry in entries:
                yield entry
                shown.advance(task)

        def write(connection: Connection) -> int:
            entries = counted(pages.day(connection, wanted))
            if out is not None and kind == "parquet":
                return exports.write_parquet(entries, out)
            return exports.write_csv(entries, out)

        try:
            count = place.read(write)
        except (exports.MissingLibraryError, OSError) as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps({"day": str(wanted), "format": kind, "out": str(out), "events": count}))
    elif out is not None:
        click.echo(f"{count:,} events of {wanted} in {out}")
    elif not count:
        click.echo(f"No events of {wanted}.", err=True)
