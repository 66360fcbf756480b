"""The decision: metering's word to the proxies on one (group, slug, day) (contract 4, counting 5, 6).

A reader ignores a version lower than the one it has.
"""

from datetime import date

from pydantic import Field

from schemas.base import Record, Timestamp
from schemas.limits import LimitType


class UsedUp(Record):
    """A threshold that the totals have reached, named so that a reader with another threshold ignores it."""

    type: LimitType
    threshold: int


class Decision(Record):
    """Limit totals of one (group, slug, UTC day) and how far each proxy's events are in them."""

    group_id: str
    model_slug: str
    day: date
    requests: int
    tokens: int
    counted: dict[str, int] = Field(description="Producer instance to the highest sequence that is counted, inclusive.")
    used_up: tuple[UsedUp, ...] = ()
    reset_at: Timestamp = Field(description="Midnight UTC that ends the day.")
    version: int
