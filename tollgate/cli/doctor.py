"""`tollgate doctor`: checks every dependency and says what to do (spec section 6).

Never changes anything: that is `tollgate.doctor`, and what it advises.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from runtime import settings
from tollgate import doctor as examination

_WELL = click.style("well ", fg="green")
_WRONG = click.style("WRONG", fg="red")


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="A tollgate.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Check the settings, the disk, the database, the master key and Kafka. Exits 1 where something is wrong."""
    try:
        loaded = settings.load(config, data_dir=data)
    except settings.SettingsError as error:
        raise click.ClickException(str(error)) from None
    findings = list(examination.examine(loaded))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    for finding in () if as_json else findings:
        click.echo(f"{_WRONG if finding.problems else _WELL}  {finding.what}")
        for problem in finding.problems:
            click.echo(f"       {problem}")
    sys.exit(1 if any(finding.problems for finding in findings) else 0)
