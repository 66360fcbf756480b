"""The time, as every process reads it.

Never steps back within the life of a process, except for `present`: a clock set back must not reopen a window or a day
(contract 7). And never stands still, or what is to be tried again or freed would wait for as long as the step was:
where the source stepped back, the clock goes at half the speed until the source has caught up.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Return the present as an aware UTC time."""

Steady = Callable[[], float]
"""Return seconds that only ever pass, from no moment in particular: for durations within a process."""

BELIEVED = timedelta(days=7)
"""How far the clock may lie ahead of the newest that is known. Where it was longer still that nothing came, what has
expired goes later than it could, and all of it after a start that finds something newer."""

_CATCHING_UP = 0.5
"""The speed of a clock that is ahead of its source: right again after twice the step."""


_log = logging.getLogger(__name__)


def present() -> datetime:
    """Return what this machine's clock says, steps and all: for what others compare with their own clocks."""
    return datetime.now(UTC)


def steady(source: Callable[[], float] = time.time, passing: Steady = time.monotonic) -> Clock:
    """Make a clock over `source` (seconds since the epoch) that never steps back.

    While it is ahead of the source it goes on by `passing`.
    """
    latest, at = source(), passing()

    def now() -> datetime:
        nonlocal latest, at
        moment = passing()
        latest, at = max(source(), latest, latest + (moment - at) * _CATCHING_UP), moment
        return datetime.fromtimestamp(latest, UTC)

    return now


def _since_boot() -> float:
    """Return seconds that pass also while the machine is suspended, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class BelievedClock:
    """A clock for what removes old things: it may lie at most BELIEVED beyond the newest that the data knew.

    The data are asked once: after a step of the clock they would soon repeat what it says. From then on the bound moves
    with the time that passes.
    """

    def __init__(self, clock: Clock, steady: Steady, *, what: str) -> None:
        """`what` names in the log what expires by this clock."""
        self._clock = clock
        self._steady = steady
        self._what = what
        self._newest: tuple[datetime, float] | None = None
        """What the data said, and when that was seen."""
        self._is_doubted = False

    def now(self, newest: Callable[[], datetime | None]) -> datetime:
        """Return the present, as far as it is believed. `newest` asks the data; None: there are none to remove."""
        now = self._clock()
        if self._newest is None:
            known = newest()
            if known is None:
                return now
            self._newest = known, self._steady()
        known, at_s = self._newest
        bound = known + BELIEVED + timedelta(seconds=self._steady() - at_s)
        if now > bound and not self._is_doubted:
            text = "the clock says %s, but nothing was known to happen since %s: %s expire as of %s"
            _log.warning(text, now.date(), known.date(), self._what, bound.date())
        self._is_doubted = now > bound
        return min(now, bound)


class SharedClock:
    """A clock that the processes of several machines agree on: what it was `set` to, and the time since.

    Between two settings no step of this machine's own clock changes it.
    """

    def __init__(self, moment: datetime, passing: Steady = _since_boot) -> None:
        self._passing = passing
        self.set(moment)
        self._now = steady(self._seconds, passing)

    def __call__(self) -> datetime:
        """Return the present; never an earlier one than before."""
        return self._now()

    def set(self, moment: datetime) -> None:
        """Take `moment` for the present."""
        self._ahead_s = moment.timestamp() - self._passing()

    def present(self) -> datetime:
        """Return what it was set to and the time since, also where that is a step back (see `present` above)."""
        return datetime.fromtimestamp(self._seconds(), UTC)

    def _seconds(self) -> float:
        return self._passing() + self._ahead_s
