"""The time, as every process reads it.

Never steps back within the life of a process: a clock set back must not reopen a window or a day (spec 7).
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Gives the present as an aware UTC time."""


def steady(source: Callable[[], float] = time.time) -> Clock:
    """Make a clock over `source` (seconds since the epoch) that waits where the source steps back."""
    latest = source()

    def now() -> datetime:
        nonlocal latest
        latest = max(latest, source())
        return datetime.fromtimestamp(latest, UTC)

    return now
