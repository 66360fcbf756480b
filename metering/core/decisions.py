"""The decision on one counter: a lane's part of its limit totals, and which thresholds all lanes have reached."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain import amounts, days
from domain.limit_tree import Threshold
from metering.core.sums import LimitIncrement, LimitTotal
from schemas.decisions import Decision, UsedUp
from schemas.limits import LimitType, UsageLimitUnit


@dataclass(frozen=True, slots=True)
class Part:
    """What is told of one counter: `total` is what its lane counts below the lane's offset `at`."""

    lane: str
    partition: int
    at: int
    total: LimitTotal
    used_up: tuple[UsedUp, ...] = ()
    unit: UsageLimitUnit = UsageLimitUnit.DAY
    """What the total is of; a month's counter bears its first day."""


def used_up(
    whole: LimitTotal, thresholds: Sequence[Threshold], unit: UsageLimitUnit = UsageLimitUnit.DAY
) -> tuple[UsedUp, ...]:
    """Judge the sum over lanes of a period of `unit`: a threshold is used up once it is reached."""
    return tuple(
        UsedUp(type=threshold.type, unit=unit, threshold=threshold.value)
        for threshold in thresholds
        if threshold.unit is unit and used(whole, threshold.type) >= threshold.value
    )


def decision(part: Part, first_version: int = 0) -> Decision:
    """Return a part as proxies read it; its count of changes is added to `first_version`."""
    total, counter = part.total, part.total.counter
    return Decision(
        lane=part.partition,
        at=part.at,
        group_id=counter.group_id,
        model_slug=counter.model_slug,
        period=days.period(counter.day, part.unit),
        requests=total.requests,
        tokens=total.tokens,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cost=total.cost,
        used_up=part.used_up,
        reset_at=days.reset_at(counter.day, part.unit),
        version=first_version + total.version,
    )


def used(total: LimitTotal | LimitIncrement, type_: LimitType) -> int:
    """Return what of a total counts against a limit of this type."""
    return amounts.counted(type_, total.requests, total.tokens, total.output_tokens, total.cost)
