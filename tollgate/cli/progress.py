"""The progress bar of a command that may take long."""

import sys

from rich.console import Console
from rich.progress import Progress


def bar(*, prints_meanwhile: bool = False) -> Progress:
    """Return a progress bar on stderr, which shows nothing where that is no terminal.

    `prints_meanwhile`: the command writes its answer to stdout under it, so no bar either where that is a terminal.
    """
    is_seen = sys.stderr.isatty() and not (prints_meanwhile and sys.stdout.isatty())
    return Progress(
        console=Console(stderr=True),
        transient=True,
        disable=not is_seen,
        redirect_stdout=False,  # else the library sends what goes to stdout to the bar's own stream
        redirect_stderr=False,
    )
