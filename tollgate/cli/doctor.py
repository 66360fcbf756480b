"""`tollgate doctor`: checks every dependency and says what to do (contract 6)."""

import json
import sys
from dataclasses import asdict

import click

from runtime.settings import SettingsError
from tollgate import doctor as examination
from tollgate import installation
from tollgate.cli import commands
from tollgate.cli.commands import Where
from tollgate.doctor import Finding

_WELL = click.style("well ", fg="green")
_WRONG = click.style("WRONG", fg="red")


@click.command()
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, where: Where, as_json: bool) -> None:
    """Check the settings, the disk, the database, the master key, stored URLs and Kafka.

    Exits 1 where something is wrong.
    """
    name, findings = _examined(where)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    elif name:
        click.echo(f"Examining {name}")
    for finding in () if as_json else findings:
        click.echo(f"{_WRONG if finding.problems else _WELL}  {finding.what}")
        for problem in finding.problems:
            click.echo(f"       {problem}")
    sys.exit(1 if any(finding.problems for finding in findings) else 0)


def _examined(where: Where) -> tuple[str, list[Finding]]:
    """Name the installation and give what was found; settings that cannot be used are all that there is to say."""
    try:
        loaded = commands.load(where, say=lambda _: None)  # they are findings
    except SettingsError as error:
        return "", [Finding("settings", (str(error),))]
    return installation.named(loaded), list(examination.examine(loaded))
