"""What commands on an installation share: opening it, and saying in one line why that or the work failed.

Never does a command's own work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from control.core.refusals import RefusalError
from runtime import settings
from tollgate import workplace
from tollgate.workplace import Workplace


@contextmanager
def opened(data: Path | None, *, new: bool = False) -> Iterator[Workplace]:
    """Open the installation, or make a data directory; every failure becomes one line and exit code 1."""
    try:
        with workplace.opened(settings.load(data_dir=data), new=new) as place:
            yield place
    except (settings.SettingsError, workplace.WorkplaceError, RefusalError) as error:
        raise click.ClickException(str(error)) from None
