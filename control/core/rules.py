"""Rules that need no other records: org prefixes, names, and limits along a tree (contract 2.1, 2.2)."""

import math
import re
from collections.abc import Mapping, Sequence

from control.core.refusals import InvalidError
from schemas.limits import ModelConfig, RateLimit, UsageLimit

MAX_NAME_LENGTH = 255

MAX_MODELS = 1000
"""Models of one group. Even with the longest slugs and every limit its record is then about half of what Kafka takes;
one that Kafka refused would be accepted here and never be in force."""

RESERVED_PREFIX = "test"
"""No workspace's: a test delivery's event names the slug `test/test`."""

ThresholdKey = tuple[str, str, str]
"""Where a limit stands: slug, type, unit."""

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def org_prefix(slug: str) -> str:
    """Return a slug's part before the slash."""
    return slug.partition("/")[0]


def check_org_prefix(prefix: str) -> None:
    """Raise InvalidError where `prefix` could not begin a slug, or is reserved (compared case-folded)."""
    if not _PREFIX.fullmatch(prefix) or len(prefix) > MAX_NAME_LENGTH - 2:
        raise InvalidError(
            "org_prefix: letters, digits, '.', '_' and '-' are allowed, beginning with a letter or digit, "
            f"at most {MAX_NAME_LENGTH - 2} characters",
            param="org_prefix",
        )
    if prefix.casefold() == RESERVED_PREFIX:
        raise InvalidError(
            f"org_prefix: '{RESERVED_PREFIX}' is what the slug of test deliveries begins with; choose another",
            param="org_prefix",
            code="org_prefix_reserved",
        )


def check_workspace_name(name: str) -> None:
    """Raise InvalidError where `name` is empty, too long or not printable."""
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidError(f"name: 1 to {MAX_NAME_LENGTH} printable characters are allowed", param="name")


def check_models(models: Sequence[ModelConfig]) -> None:
    """Raise InvalidError where a group would list more models than its record may hold."""
    if len(models) > MAX_MODELS:
        raise InvalidError(
            f"models: at most {MAX_MODELS} are allowed in one group, these are {len(models)}",
            param="models",
            code="too_many_models",
        )


def exceeds(child: Sequence[ModelConfig], ancestor: Sequence[ModelConfig]) -> str | None:
    """Say which limit of `child` is above the ancestor's of the same slug, type and unit; None where none is."""
    return exceeds_any(thresholds(child), thresholds(ancestor))


def exceeds_any(child: Mapping[ThresholdKey, int], allowed: Mapping[ThresholdKey, int]) -> str | None:
    """Say the same of thresholds."""
    for (slug, type_, unit), threshold in child.items():
        most = allowed.get((slug, type_, unit), threshold)
        if threshold > most:
            return f"{slug}: {type_} per {unit} is {threshold}, above {most}"
    return None


def lowered(after: Sequence[ModelConfig], before: Sequence[ModelConfig]) -> Sequence[ModelConfig]:
    """Return the models of `after` with a limit that `before` did not set, or set higher."""
    earlier = thresholds(before)
    places = {place for place, threshold in thresholds(after).items() if threshold < earlier.get(place, math.inf)}
    slugs = {slug for slug, _, _ in places}
    return [model for model in after if model.slug in slugs]


def _limits(model: ModelConfig) -> tuple[RateLimit | UsageLimit, ...]:
    return (*model.rate_limits, *model.usage_limits)


def thresholds(models: Sequence[ModelConfig]) -> dict[ThresholdKey, int]:
    """Return each limit's threshold by where it stands."""
    return {
        (model.slug, limit.type.value, limit.unit.value): limit.threshold
        for model in models
        for limit in _limits(model)
    }
