"""`tollgate schemas`: gives out the contracts of what others read from us.

Never writes anywhere but into the folder that was named.
"""

from pathlib import Path

import click

from schemas import publish


@click.group()
def schemas() -> None:
    """JSON Schemas of topics and webhooks."""


@schemas.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export(folder: Path) -> None:
    """Write every JSON Schema into FOLDER."""
    for path in publish.write(folder):
        click.echo(path)
