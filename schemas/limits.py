"""Limits as groups set them and as they hold after inheritance (contract 2.2, 3.1)."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Message, NullMeans

Threshold = Annotated[int, Field(ge=0, le=2**53)]
"""The most that is allowed in a window or day; 0 lets nothing in. At most 2^53, what every JSON reader can hold."""

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=255)]
"""``{org_prefix}/{name}``."""

ANY_SLUG = "*"
"""Stands for all slugs of a group together. It grants none of them."""

ListedSlug = Annotated[
    str,
    Field(
        pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)$",
        max_length=255,
        description="A slug; or `*`, whose limits bound the sum over all slugs of the group, and which grants none.",
    ),
]
"""What a group lists."""


class LimitType(StrEnum):
    """What is counted: requests, prompt plus completion tokens, one of the two parts of these, or what they cost.

    COST is in the minor unit of the currency that the slug's prices are in, and only of a day or a month.
    """

    REQUEST = "REQUEST"
    TOKEN = "TOKEN"
    INPUT_TOKEN = "INPUT_TOKEN"
    OUTPUT_TOKEN = "OUTPUT_TOKEN"
    COST = "COST"


class RateLimitUnit(StrEnum):
    """The length of a rolling window; CONCURRENT: of requests, how many are in flight."""

    SECOND = "SECOND"
    MINUTE = "MINUTE"
    CONCURRENT = "CONCURRENT"


class UsageLimitUnit(StrEnum):
    """The period of a usage limit: the UTC day, or the UTC calendar month."""

    DAY = "DAY"
    MONTH = "MONTH"


class LimitEnforcement(StrEnum):
    """How limits act along a tree."""

    INDEPENDENT = "INDEPENDENT"
    CASCADING = "CASCADING"


class RateLimit(Message):
    """At most `threshold` of `type` in any rolling `unit`, or in flight."""

    type: LimitType
    unit: RateLimitUnit
    threshold: Threshold

    @model_validator(mode="after")
    def _has_a_meaning(self) -> Self:
        if self.type is LimitType.COST:
            raise ValueError("COST is a usage limit's type: it takes the units DAY and MONTH alone")
        if self.unit is RateLimitUnit.CONCURRENT and self.type is not LimitType.REQUEST:
            raise ValueError("CONCURRENT takes the type REQUEST alone")
        return self


class UsageLimit(Message):
    """At most `threshold` of `type` in a UTC day or month."""

    type: LimitType
    unit: UsageLimitUnit
    threshold: Threshold


class ModelConfig(Message):
    """A slug that a group lists, or `*`, with the limits that the group itself sets on it."""

    slug: ListedSlug
    rate_limits: Annotated[tuple[RateLimit, ...], NullMeans(())] = ()
    usage_limits: Annotated[tuple[UsageLimit, ...], NullMeans(())] = ()

    @model_validator(mode="after")
    def _one_limit_each(self) -> Self:
        if len({(limit.type, limit.unit) for limit in self.rate_limits}) < len(self.rate_limits):
            raise ValueError("at most one rate limit per type and unit")
        if len({(limit.type, limit.unit) for limit in self.usage_limits}) < len(self.usage_limits):
            raise ValueError("at most one usage limit per type and unit")
        return self


class EffectiveRateLimit(RateLimit):
    """A rate limit that holds, and the group that set it."""

    source_group: str


class EffectiveUsageLimit(UsageLimit):
    """A usage limit that holds, and the group that set it."""

    source_group: str


class EffectiveModelConfig(Message):
    """A slug that a group may call, or `*`, with every limit that holds for it."""

    slug: ListedSlug
    rate_limits: tuple[EffectiveRateLimit, ...] = ()
    usage_limits: tuple[EffectiveUsageLimit, ...] = ()
