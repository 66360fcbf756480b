"""The decision on one counter: its limit totals, how far they count, which day thresholds they have reached (spec 4).

Never judges a threshold that it was not handed: a proxy obeys only those that it holds itself (spec 3.1).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta

from metering.core.hierarchy import Threshold
from metering.core.rollup import LimitTotal
from schemas.decisions import Decision, UsedUp
from schemas.limits import LimitType


def decide(total: LimitTotal, thresholds: Sequence[Threshold], marks: Mapping[str, int]) -> Decision:
    """Judge `total` by `thresholds`; a threshold is used up once the total has reached it.

    `marks` says up to which sequence of which producer instance `total` counts.
    """
    counter = total.counter
    return Decision(
        group_id=counter.group_id,
        model_slug=counter.model_slug,
        day=counter.day,
        requests=total.requests,
        tokens=total.tokens,
        counted=dict(marks),
        used_up=tuple(
            UsedUp(type=threshold.type, threshold=threshold.value)
            for threshold in thresholds
            if _used(total, threshold.type) >= threshold.value
        ),
        reset_at=reset_at(counter.day),
        version=total.version,
    )


def reset_at(day: date) -> datetime:
    """Give the midnight UTC that ends `day`."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def _used(total: LimitTotal, type_: LimitType) -> int:
    return total.requests if type_ is LimitType.REQUEST else total.tokens
