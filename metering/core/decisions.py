"""The decision on one counter: a lane's part of its limit totals, and which day thresholds all lanes have reached."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.days import reset_at
from domain.limit_tree import Threshold
from metering.core.sums import LimitTotal
from schemas.decisions import Decision, UsedUp
from schemas.limits import LimitType


@dataclass(frozen=True, slots=True)
class Part:
    """What is told of one counter: `total` is what its lane counts below the lane's offset `at`."""

    lane: str
    partition: int
    at: int
    total: LimitTotal
    used_up: tuple[UsedUp, ...] = ()


def used_up(whole: LimitTotal, thresholds: Sequence[Threshold]) -> tuple[UsedUp, ...]:
    """Judge the sum over lanes: a threshold is used up once it is reached."""
    return tuple(
        UsedUp(type=threshold.type, threshold=threshold.value)
        for threshold in thresholds
        if used(whole, threshold.type) >= threshold.value
    )


def decision(part: Part) -> Decision:
    """Return a part as proxies read it."""
    total, counter = part.total, part.total.counter
    return Decision(
        lane=part.partition,
        at=part.at,
        group_id=counter.group_id,
        model_slug=counter.model_slug,
        period=counter.day.isoformat(),
        requests=total.requests,
        tokens=total.tokens,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        used_up=part.used_up,
        reset_at=reset_at(counter.day),
        version=total.version,
    )


def used(total: LimitTotal, type_: LimitType) -> int:
    """Return what of a total counts against a limit of this type."""
    return total.requests if type_ is LimitType.REQUEST else total.tokens
