"""What commands share: the installation they work on, how they list, and one line for why they failed."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
from sqlalchemy import Connection

from control.core.refusals import RefusalError
from runtime import clock, settings
from runtime.database import engines as databases
from runtime.settings import Settings
from runtime.vault import VaultError
from tollgate import installation
from tollgate.installation import Installation


class Where(NamedTuple):
    """What the command line says of the installation that is meant; the settings say the rest."""

    data: Path | None
    config: Path | None


def located(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --data and --config, which the command is given as one `where`."""

    @click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The data directory.")
    @click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="A tollgate.toml.")
    @functools.wraps(command)
    def with_where(*args: Any, data: Path | None, config: Path | None, **given: Any) -> Any:
        return command(*args, where=Where(data, config), **given)

    return with_where


def _warn(text: str) -> None:
    click.echo(f"Warning: {text}", err=True)


def load(where: Where, say: Callable[[str], None] = _warn, **overrides: Any) -> Settings:
    """Load the settings; `say` is told what is set and changes nothing. Raise SettingsError."""
    for warning in settings.warnings():  # first: a misspelt name may be why something is refused below
        say(warning)
    loaded = settings.load(where.config, data_dir=where.data, **overrides)
    for warning in installation.warnings(loaded):
        say(warning)
    return loaded


def now(connection: Connection) -> datetime:
    """Return the moment on the clock that the running processes go by: they compare what a command writes with it."""
    return databases.now(connection, clock.present)


@contextmanager
def opened(where: Where, *, new: bool = False) -> Iterator[Installation]:
    """Open the installation; every failure becomes one line and exit code 1.

    With `new` a data directory is made where there is none, which is said on stderr: the server may run on another.
    """
    try:
        with installation.opened(load(where), new=new) as place:
            if place.is_new:
                click.echo(
                    f"Made a new data directory: {place.where}. Only a server that runs on it sees it.", err=True
                )
            yield place
    except (settings.SettingsError, installation.InstallationError, VaultError, RefusalError) as error:
        raise click.ClickException(str(error)) from None


def print_list(lines: Iterable[str], none: str, *, as_json: bool) -> None:
    """Print lines as they come; where there are none, say `none` on stderr to people, and nothing in JSON."""
    is_empty = True
    for line in lines:
        click.echo(line)
        is_empty = False
    if is_empty and not as_json:
        click.echo(none, err=True)
