"""The decision on one counter: its limit totals, how far they count, which day thresholds they have reached.

Never judges a threshold that it was not handed: a proxy obeys only those that it holds itself (contract 3.1).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from domain.days import reset_at
from domain.ledger_days import AHEAD_DAYS
from domain.limit_tree import Threshold
from metering.core.sums import LimitTotal
from schemas.decisions import Decision, UsedUp
from schemas.limits import LimitType

HEARD_WITHIN = timedelta(days=AHEAD_DAYS + 3)
"""How long before its lane's newest mark an instance's own may have moved and still be named by decisions."""


def heard(marks: Iterable[tuple[str, int, datetime]]) -> dict[str, int]:
    """Return the marks of a lane that decisions name, from (instance, sequence, when it moved) of every one.

    An instance that the lane has not heard of for so long has no event in any day that still lasts, so there a proxy
    without its mark (0) and one with it say the same sum; of past days a proxy holds none (`proxy.limits.days`).
    """
    every = list(marks)
    newest = max((moved_at for _, _, moved_at in every), default=None)
    return {
        instance: sequence for instance, sequence, moved_at in every if newest and newest - moved_at <= HEARD_WITHIN
    }


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
            if used(total, threshold.type) >= threshold.value
        ),
        reset_at=reset_at(counter.day),
        version=total.version,
    )


def used(total: LimitTotal, type_: LimitType) -> int:
    """Return what of a total counts against a limit of this type."""
    return total.requests if type_ is LimitType.REQUEST else total.tokens
