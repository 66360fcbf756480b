"""Sums of daily usage as they are asked for: told apart by a place, and by what they are priced by."""

from datetime import date, datetime
from typing import Any, NamedTuple

from metering.core.sums import DailyIncrement

GroupingKey = tuple[Any, ...]
"""The values that tell sums apart: the workspace's id, then one for each dimension, in the order asked for."""


class Consumed(NamedTuple):
    """Sums of one place; a place may have several rows, one after the other. What was not asked for is None."""

    place: GroupingKey
    figures: DailyIncrement
    last_used_at: datetime | None
    model_slug: str | None
    external_entity_id: str | None
    priced_day: date | None
    group_id: str | None
