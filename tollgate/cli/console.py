"""`tollgate console`: lets the operator into the console.

A link's token is printed once, and what is stored is its SHA-256.
"""

import json

import click

from control.flow import sessions as flow
from control.store.sessions import SqlSessions
from runtime import clock
from tollgate.cli import commands
from tollgate.cli.commands import Where
from tollgate.cli.menu import Menu


@click.group(cls=Menu)
def console() -> None:
    """Enter the console as the operator."""


@console.command()
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def link(where: Where, *, as_json: bool) -> None:
    """Print a link that makes whoever opens it the operator: once, within ten minutes."""
    now = clock.steady()()
    with commands.opened(where) as place:
        token = place.write(lambda connection: flow.make_link(SqlSessions(connection), now))
        url = f"{place.settings.console_url}/console/link?t={token}"
    click.echo(json.dumps({"url": url}) if as_json else url)
    if not as_json:
        click.echo(
            "It works once, for ten minutes. Where the console is elsewhere, set TOLLGATE_CONSOLE_URL.", err=True
        )
