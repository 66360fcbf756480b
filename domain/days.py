"""UTC days and months: which one an event belongs to, and when one ends (contract 3.1, 4)."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from schemas.limits import UsageLimitUnit
from schemas.spooled import AnyEvent

_LONGER_THAN_A_MONTH = timedelta(days=31)


def day_of(event: AnyEvent) -> date:
    """Return the UTC day of an event's own timestamp, however late the event comes."""
    moment = event.timestamp
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).date()


def month_of(day: date) -> date:
    """Return the first day of the month that `day` lies in, which stands for the month."""
    return day.replace(day=1)


def first_and_last(day: date, unit: UsageLimitUnit) -> tuple[date, date]:
    """Return the first and the last day of the period of `unit` that `day` lies in."""
    if unit is UsageLimitUnit.DAY:
        return day, day
    return month_of(day), month_of(month_of(day) + _LONGER_THAN_A_MONTH) - timedelta(days=1)


def reset_at(day: date, unit: UsageLimitUnit = UsageLimitUnit.DAY) -> datetime:
    """Return the midnight UTC that ends the period of `unit` that `day` lies in."""
    return datetime.combine(first_and_last(day, unit)[1] + timedelta(days=1), time(), UTC)


def period(day: date, unit: UsageLimitUnit) -> str:
    """Name the period of `unit` that `day` lies in: ``2026-11-28``, ``2026-11``."""
    return day.isoformat() if unit is UsageLimitUnit.DAY else f"{day:%Y-%m}"


@lru_cache(64)
def read_period(name: str) -> tuple[date, UsageLimitUnit]:
    """Return the first day of a period and its unit. Raise ValueError."""
    if len(name) == len("2026-11"):
        return date.fromisoformat(f"{name}-01"), UsageLimitUnit.MONTH
    return date.fromisoformat(name), UsageLimitUnit.DAY
