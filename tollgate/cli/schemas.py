"""`tollgate schemas`: gives out the contracts of what others read from us."""

import json
from pathlib import Path

import click

from schemas import publish
from tollgate.cli.menu import Menu


@click.group(cls=Menu)
def schemas() -> None:
    """JSON Schemas of topics and webhooks."""


@schemas.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the files as one JSON object.")
def export(folder: Path, *, as_json: bool) -> None:
    """Write every JSON Schema into FOLDER."""
    written = [str(path) for path in publish.write(folder)]
    click.echo(json.dumps({"files": written}) if as_json else "\n".join(written))
