"""What a group has used of its usage limits (contract 2.2)."""

from collections.abc import Callable, Collection, Mapping
from datetime import date
from functools import reduce

from control.core.records import Chain
from domain import days, limit_tree
from metering.core import decisions
from metering.core.sums import LimitIncrement
from schemas.api import GroupUsage, LimitUsage
from schemas.limits import ANY_SLUG, EffectiveUsageLimit, UsageLimitUnit

Sums = Mapping[tuple[str, str], LimitIncrement]
"""What counts against limits, by group and slug."""

FindTotals = Callable[[Collection[str], date, date], Sums]
"""Return metering's limit totals of these groups over these days, both inclusive; without those that had no event."""


def usage(chain: Chain, find: FindTotals, day: date) -> GroupUsage:
    """Return every usage limit in effect with its use in the UTC day `day`, or in its month."""
    records = [group.record for group in chain]
    models = [model for model in limit_tree.effective_models(records) if model.usage_limits]
    counting: dict[UsageLimitUnit, set[str]] = {}
    for model in models:
        for limit in model.usage_limits:
            counting.setdefault(limit.unit, set()).add(limit_tree.counting_group(records, limit))
    found = {unit: find(groups, *days.first_and_last(day, unit)) for unit, groups in counting.items()}

    def use(slug: str, limit: EffectiveUsageLimit) -> LimitUsage:
        total = _sum(found[limit.unit], limit_tree.counting_group(records, limit), slug)
        return LimitUsage(
            type=limit.type,
            unit=limit.unit,
            threshold=limit.threshold,
            current_usage=None if total is None else decisions.used(total, limit.type),
            reset_at=None if total is None else days.reset_at(day, limit.unit),
            source_group=limit.source_group,
        )

    return GroupUsage(
        customer_id=records[0].external_entity_id,
        usage={model.slug: tuple(use(model.slug, limit) for limit in model.usage_limits) for model in models},
    )


def _sum(found: Sums, group_id: str, slug: str) -> LimitIncrement | None:
    """Return what counts for one slug of a group, or for `*`; None where nothing had an event."""
    if slug != ANY_SLUG:
        return found.get((group_id, slug))
    all_slugs = [total for (group, _), total in found.items() if group == group_id]
    return reduce(LimitIncrement.plus, all_slugs) if all_slugs else None
