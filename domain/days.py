"""UTC days: which one an event belongs to, and when one ends (contract 3.1, 4)."""

from datetime import UTC, date, datetime, time, timedelta

from schemas.spooled import AnyEvent


def day_of(event: AnyEvent) -> date:
    """Return the UTC day of an event's own timestamp, however late the event comes."""
    moment = event.timestamp
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).date()


def reset_at(day: date) -> datetime:
    """Return the midnight UTC that ends `day`."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)
