"""Which UTC days the ledger takes events of (contract 4: "Kept")."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

LATE_DAYS = 100
"""How many days an event may come late, today among them: the least that a ledger is kept.

An event is up to 35 days in its topic, and before that in a spool; what is left of the 100 is the spool's.
"""

AHEAD_DAYS = 7
"""How many days beyond today are made ready: as long may nobody be there to make more, or a proxy's clock run ahead."""


class Days(NamedTuple):
    """A stretch of days, both inclusive; empty where `last` lies before `first`."""

    first: date
    last: date

    def holds(self, day: date) -> bool:
        """Tell whether an event of `day` has a place."""
        return self.first <= day <= self.last

    def each(self) -> Iterator[date]:
        """Return the days in order."""
        for offset in range((self.last - self.first).days + 1):
            yield self.first + timedelta(days=offset)

    def refusal(self, day: date) -> str:
        """Say in one line why an event of `day` has no place: the reason that goes with the unreadable record."""
        if day > self.last:
            return f"its day {day} is too far ahead: the ledger's last is {self.last}"
        return f"its day {day} is no longer kept: the ledger's first is {self.first}"


EVERY = Days(date.min, date.max)
NONE = Days(date.max, date.min)


def after(day: date) -> date:
    """Return the day behind `day`."""
    return day + timedelta(days=1)


class DayClosedError(Exception):
    """A batch holds an event of a day that the ledger has no place for; nothing of the batch was counted."""


def missing(today: date, existing: Days) -> Days:
    """Return the days to make: the whole stretch around `today` where none exists, else those behind the last one.

    Never one before those that exist: it may have been dropped, and its keys with it, so its events would count twice.
    """
    last = today + timedelta(days=AHEAD_DAYS)
    if existing == NONE:
        return Days(first(today, LATE_DAYS), last)
    if existing.last >= last:
        return NONE
    return Days(after(existing.last), last)


def first(today: date, keep_days: int) -> date:
    """Return the first of the `keep_days` days that end with `today`."""
    return today - timedelta(days=keep_days - 1)


def expired(today: date, keep_days: int, existing: Days) -> Days:
    """Return the days to drop, today among the `keep_days`. Raise ValueError where a late event could still come."""
    if keep_days < LATE_DAYS:
        raise ValueError(f"the ledger must be kept at least {LATE_DAYS} days")
    return Days(existing.first, min(existing.last, first(today, keep_days) - timedelta(days=1)))
