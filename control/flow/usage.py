"""What a group has used of its day limits (contract 2.2)."""

from collections.abc import Callable, Collection, Mapping
from datetime import date

from control.core.records import Chain
from domain import days, limit_tree
from metering.core import decisions
from metering.core.sums import Counter, LimitTotal
from schemas.api import GroupUsage, LimitUsage
from schemas.config import GroupRecord
from schemas.limits import EffectiveUsageLimit

FindTotals = Callable[[Collection[Counter]], Mapping[Counter, LimitTotal]]
"""Return metering's limit totals of those counters that had an event."""


def usage(chain: Chain, find: FindTotals, day: date) -> GroupUsage:
    """Return every usage limit in effect with its use on the UTC day `day`."""
    records = [group.record for group in chain]
    models = [model for model in limit_tree.effective_models(records) if model.usage_limits]
    counters = {_counter(records, model.slug, limit, day) for model in models for limit in model.usage_limits}
    found = find(counters)
    return GroupUsage(
        customer_id=records[0].external_entity_id,
        usage={
            model.slug: tuple(
                _use(limit, found.get(_counter(records, model.slug, limit, day))) for limit in model.usage_limits
            )
            for model in models
        },
    )


def _counter(records: list[GroupRecord], slug: str, limit: EffectiveUsageLimit, day: date) -> Counter:
    return Counter(day, limit_tree.counting_group(records, limit), slug)


def _use(limit: EffectiveUsageLimit, total: LimitTotal | None) -> LimitUsage:
    return LimitUsage(
        type=limit.type,
        unit=limit.unit,
        threshold=limit.threshold,
        current_usage=None if total is None else decisions.used(total, limit.type),
        reset_at=None if total is None else days.reset_at(total.counter.day),
        source_group=limit.source_group,
    )
