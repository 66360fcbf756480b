"""What a developer's own key may use, has used, and when that begins anew: `GET /v1/usage` (contract 2.5).

Never names a group: a limit is the key's own group's, or one's above it.
"""

from typing import Any

from domain.days import reset_at
from proxy.admission import Admissions, Directory
from proxy.core import replies
from proxy.core.calls import Key, Route
from proxy.core.replies import Reply
from proxy.limits.days import DayCounters, DayLimit
from proxy.limits.windows import WindowLimit
from runtime.clock import Clock
from schemas.base import rfc3339


class OwnUsage:
    """Answers from the sums that this proxy decides by."""

    def __init__(self, admissions: Admissions, directory: Directory, days: DayCounters, clock: Clock) -> None:
        self._admissions = admissions
        self._directory = directory
        self._days = days
        self._clock = clock

    def answer(self, authorization: bytes | None) -> Reply:
        """Return the limits of the key of an Authorization header by slug, `*` for those over all slugs."""
        key = self._admissions.authenticate(authorization)
        if isinstance(key, Reply):
            return key
        reply = replies.json_reply({"object": "usage", **self._of(key)})
        reply.key = key
        return reply

    def _of(self, key: Key) -> dict[str, Any]:
        usage: dict[str, dict[DayLimit, Any]] = {}
        rates: dict[str, dict[WindowLimit, Any]] = {}
        today = self._clock().date()
        for slug in [model.slug for model in self._directory.models(key)]:
            route = self._directory.route(key, slug)
            if not isinstance(route, Route):
                continue
            for rate in (*route.rates.limits, *route.concurrent):
                rates.setdefault(rate.counted_slug(slug), {})[rate] = _described(rate, key)
            for limit in route.day_limits:
                used, ends = self._days.used(limit, slug, today), rfc3339(reset_at(today, limit.unit))
                described = _described(limit, key) | {"current_usage": used, "reset_at": ends}
                usage.setdefault(limit.counted_slug(slug), {})[limit] = described
        return {
            "usage": {slug: list(limits.values()) for slug, limits in usage.items()},
            "rate_limits": {slug: list(limits.values()) for slug, limits in rates.items()},
        }


def _described(limit: DayLimit | WindowLimit, key: Key) -> dict[str, Any]:
    return {
        "type": limit.type.value,
        "unit": limit.unit.value,
        "threshold": limit.threshold,
        "source": "own" if limit.source_group == key.group_id else "above",
    }
