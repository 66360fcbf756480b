"""Which shares of its limits a group's day or month has reached (contract 2.5).

Rules: a share is reached once what is used is at least so many percent of the threshold; a threshold of 0 has none.
An alert is of one share of one limit in one period, and its id says which: the same however often it is worked out.
"""

import uuid
from collections.abc import Iterator, Sequence
from datetime import date
from typing import NamedTuple

from domain import days
from domain.limit_tree import Threshold
from metering.core import decisions
from metering.core.sums import LimitTotal
from schemas.limits import LimitType, UsageLimitUnit


class PeriodSum(NamedTuple):
    """What counts against a counter's limits over all lanes, in the day or the month of `unit`."""

    total: LimitTotal
    unit: UsageLimitUnit


class AlertedGroup(NamedTuple):
    """A group whose workspace asked for alerts, at these percents of each limit."""

    workspace_id: str
    external_entity_id: str
    shares: tuple[int, ...]


class Alert(NamedTuple):
    """One share of one limit that was reached. `day` is the first of its period; `used` is of when it was seen."""

    id: str
    workspace_id: str
    group_id: str
    external_entity_id: str
    model_slug: str
    type: LimitType
    unit: UsageLimitUnit
    threshold: int
    share: int
    day: date
    used: int


def reached(group: AlertedGroup, found: PeriodSum, thresholds: Sequence[Threshold]) -> Iterator[Alert]:
    """Yield the alert of each share that `found`, a sum of the group's, has reached."""
    (day, group_id, slug), unit = found.total.counter, found.unit
    for limit in thresholds:
        used = decisions.used(found.total, limit.type)
        for share in group.shares:
            if limit.unit is unit and limit.value > 0 and used * 100 >= share * limit.value:
                first = days.first_and_last(day, unit)[0]
                name = f"{group_id}/{slug}/{limit.type}/{unit}/{limit.value}/{share}/{first}"
                alert_id = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
                of = (group.workspace_id, group_id, group.external_entity_id, slug)
                yield Alert(alert_id, *of, limit.type, unit, limit.value, share, first, used)
