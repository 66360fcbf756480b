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


class SharedClock:
    """A clock that the processes of several machines agree on: this one's own, put right by `set`.

    Between two settings it goes as fast as this machine's; it never steps back either.
    """

    def __init__(self, moment: datetime, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self.set(moment)
        self._now = steady(lambda: source() + self._ahead_s)

    def __call__(self) -> datetime:
        """Give the present."""
        return self._now()

    def set(self, moment: datetime) -> None:
        """Take `moment` for the present."""
        self._ahead_s = moment.timestamp() - self._source()
