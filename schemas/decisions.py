"""The decision: what metering tells the proxies of one (group, slug, period), lane by lane (contract 4, counting 5, 6).

A lane is one partition of the usage topic, and its decisions are in the partition of the same number. What is told of a
lane says as an offset how far the lane is counted (`at`), and a proxy knows the offsets of its own events from the
broker's acknowledgements; so no record names a proxy. Of one counter and lane the highest (version, at) counts; what a
counter's lanes tell is to be added up. Beside them: what proxies tell each other before metering does.
"""

from datetime import date

import msgspec
from pydantic import Field

from schemas.base import InternalRecord, Timestamp
from schemas.limits import LimitType, UsageLimitUnit


class UsedUp(InternalRecord):
    """A threshold that the totals over all lanes have reached."""

    type: LimitType
    unit: UsageLimitUnit = UsageLimitUnit.DAY
    threshold: int


class Decision(InternalRecord):
    """One lane's part of the limit totals of one (group, slug, period). Key: ``counter/group/slug/period``.

    Months are told of groups that have a limit on them alone.
    """

    lane: int = Field(ge=0)
    at: int = Field(description="The lane's committed next offset when the figures were read: all below is in them.")
    group_id: str
    model_slug: str
    period: str = Field(description="The UTC day, as 2026-11-28, or month, as 2026-11.")
    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
    cost: int = Field(default=0, description="In millionths of the minor unit of the currency that prices are in.")
    used_up: tuple[UsedUp, ...] = ()
    reset_at: Timestamp = Field(description="Midnight UTC that ends the period.")
    version: int


class HeardDecision(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """`Decision` as a proxy reads it, at a sixth of the cost: a test holds one against the other.

    What metering judged is for others; a proxy judges by its own sum.
    """

    lane: int
    at: int
    group_id: str
    model_slug: str
    period: str
    requests: int
    tokens: int
    output_tokens: int
    version: int
    cost: int = 0


class Whole(InternalRecord):
    """Every change of the lane below `at` was told before this record. Key: ``whole``."""

    lane: int = Field(ge=0)
    at: int


class Spread(InternalRecord):
    """Over how many lanes the events of a busy tree are to lie: advice, any may lie anywhere. Key: ``spread/group``.

    None: 1. The group is the last that the events are charged to; its own lane is that of murmur2 of its id.
    """

    group_id: str
    lanes: int = Field(ge=1)


class InFlightUsage(InternalRecord):
    """What is in flight, or ended and not counted in the totals that its proxy has heard. Key: group/slug/day/instance.

    Absolute, and void two seconds after it was heard, unless it was told again.
    """

    group_id: str
    model_slug: str
    day: date
    instance: str
    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
    cost: int = 0


class DecisionBySequence(InternalRecord):
    """A record of ``limits.decisions.v1``, which metering of the version before wrote; read while versions change."""

    group_id: str
    model_slug: str
    day: date
    requests: int
    tokens: int
    counted: dict[str, int] = Field(description="Producer instance to the highest sequence that is counted, inclusive.")
    version: int
