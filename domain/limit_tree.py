"""Which limits hold for a group, and which groups a request is charged to (contract 2.2).

Rules, over a chain that begins with the key's own group and ends with its root:

- A group may call every slug that it or an ancestor lists.
- INDEPENDENT: for each (slug, type, unit) the closest group that sets a limit wins; only the own group is charged.
- CASCADING: every limit on the chain holds; every group on the chain is charged.
- What is listed under `*` follows the same rules as a slug does; it bounds the sum over all slugs and grants none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple, Self

from schemas.config import GroupRecord
from schemas.limits import (
    ANY_SLUG,
    EffectiveModelConfig,
    EffectiveRateLimit,
    EffectiveUsageLimit,
    LimitEnforcement,
    LimitType,
    ModelConfig,
    RateLimit,
    UsageLimit,
    UsageLimitUnit,
)


class Node(NamedTuple):
    """A group as those keep it who hold all of them: of its record what limits ask, in a tenth of its memory."""

    id: str
    workspace_id: str
    external_entity_id: str
    ancestor_ids: tuple[str, ...]
    limit_enforcement: LimitEnforcement
    models: tuple[ModelConfig, ...]

    @classmethod
    def of(cls, record: GroupRecord) -> Self:
        """Return the node of a record. Its ids are shared with all that names them: a million keys, and descendants."""
        return cls(
            intern(record.id),
            intern(record.workspace_id),
            record.external_entity_id,
            tuple(map(intern, record.ancestor_ids)),
            record.limit_enforcement,
            record.models,
        )


AnyGroup = GroupRecord | Node
Chain = Sequence[AnyGroup]
"""The own group first, its parent next, the root last; never empty."""

MAX_LEVELS = 5


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold of a day or a month that metering judges for one counter."""

    type: LimitType
    value: int
    unit: UsageLimitUnit = UsageLimitUnit.DAY


def chain(group_id: str, find: Callable[[str], AnyGroup | None]) -> Chain:
    """Return a group and its ancestors, as `find` has them by id; empty where one of them is gone."""
    own = find(group_id)
    if own is None:
        return ()
    ancestors = [find(ancestor_id) for ancestor_id in own.ancestor_ids]
    found = tuple(ancestor for ancestor in ancestors if ancestor is not None)
    return (own, *found) if len(found) == len(ancestors) else ()


def charged_groups(chain: Chain) -> tuple[str, ...]:
    """Return the ids of the groups whose limit totals one request adds to, the own group first."""
    if chain[0].limit_enforcement is LimitEnforcement.CASCADING:
        return tuple(group.id for group in chain)
    return (chain[0].id,)


def callable_slugs(chain: Chain) -> tuple[str, ...]:
    """Return the slugs the group may call, those it lists itself first, each once."""
    listed = dict.fromkeys(model.slug for group in chain for model in group.models)
    listed.pop(ANY_SLUG, None)
    return tuple(listed)


def effective_model(chain: Chain, slug: str) -> EffectiveModelConfig | None:
    """Return every limit that holds for `slug`, with its source; None where no group of the chain lists it.

    Where a group lists `*`, its limits hold beside them: they are those of the slug `*`.
    """
    settings = {group.id: model for group in chain if (model := _listed(group, slug)) is not None}
    return _effective(chain, slug, settings) if settings else None


def effective_models(chain: Chain) -> tuple[EffectiveModelConfig, ...]:
    """Return `effective_model` for everything that the chain lists, `*` too, what the group itself lists first."""
    # One pass over all that is listed: a search for each slug would take the square of their number.
    by_slug: dict[str, dict[str, ModelConfig]] = {}
    for group in chain:
        for model in group.models:
            by_slug.setdefault(model.slug, {}).setdefault(group.id, model)
    return tuple(_effective(chain, slug, settings) for slug, settings in by_slug.items())


def counting_group(chain: Chain, limit: EffectiveRateLimit | EffectiveUsageLimit) -> str:
    """Return the group whose counter a limit is compared with: its source where limits cascade, else the own group."""
    if chain[0].limit_enforcement is LimitEnforcement.CASCADING:
        return limit.source_group
    return chain[0].id


def thresholds(chain: Chain, slug: str) -> tuple[Threshold, ...]:
    """Return the thresholds of usage limits that are compared with the counter of the chain's own group for `slug`."""
    model = effective_model(chain, slug)
    if model is None:
        return ()
    own = chain[0].id
    return tuple(
        Threshold(limit.type, limit.threshold, limit.unit)
        for limit in model.usage_limits
        if counting_group(chain, limit) == own
    )


def is_monthly(chain: Chain, slug: str) -> bool:
    """Whether a month's sum of the counter of the chain's own group for `slug` is compared with a limit, or with others
    of the group's together.
    """
    listed = (*thresholds(chain, slug), *thresholds(chain, ANY_SLUG))
    return any(threshold.unit is UsageLimitUnit.MONTH for threshold in listed)


def _effective(chain: Chain, slug: str, settings: Mapping[str, ModelConfig]) -> EffectiveModelConfig:
    """Join what the groups of a chain set on one slug, by group, the closest first."""
    closest_only = chain[0].limit_enforcement is LimitEnforcement.INDEPENDENT
    rates: list[EffectiveRateLimit] = []
    usages: list[EffectiveUsageLimit] = []
    seen: set[tuple[str, str]] = set()
    for source, model in settings.items():
        limits: tuple[RateLimit | UsageLimit, ...] = (*model.rate_limits, *model.usage_limits)
        for limit in limits:
            name = (limit.type.value, limit.unit.value)
            if closest_only and name in seen:
                continue
            seen.add(name)
            _add(limit, source, rates, usages)
    return EffectiveModelConfig(slug=slug, rate_limits=tuple(rates), usage_limits=tuple(usages))


def _listed(group: AnyGroup, slug: str) -> ModelConfig | None:
    return next((model for model in group.models if model.slug == slug), None)


def _add(
    limit: RateLimit | UsageLimit, source: str, rates: list[EffectiveRateLimit], usages: list[EffectiveUsageLimit]
) -> None:
    if isinstance(limit, RateLimit):
        rates.append(
            EffectiveRateLimit(type=limit.type, unit=limit.unit, threshold=limit.threshold, source_group=source)
        )
    else:
        usages.append(
            EffectiveUsageLimit(type=limit.type, unit=limit.unit, threshold=limit.threshold, source_group=source)
        )
