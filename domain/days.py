"""UTC days: which one an event belongs to, and when one ends (contract 3.1, 4)."""

from datetime import UTC, date, datetime, time, timedelta

from schemas.usage import UsageEvent


def day_of(event: UsageEvent) -> date:
    """Return the UTC day of an event's own timestamp, however late the event comes."""
    return event.timestamp.astimezone(UTC).date()


def reset_at(day: date) -> datetime:
    """Return the midnight UTC that ends `day`."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)
