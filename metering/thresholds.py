"""The thresholds of usage limits, and at which shares of them alerts are asked for, from the configuration feed.

Never refuses to count: an unknown group has no thresholds, and its events are counted all the same (contract 2.2).
"""

from collections import deque
from itertools import islice

from domain import limit_tree
from domain.limit_tree import Node, Threshold
from metering.core.alerts import AlertedGroup
from runtime.config.newest import Newest
from schemas.config import ConfigChange, ConfigKind, GroupRecord, WebhookRecord
from schemas.limits import UsageLimit, UsageLimitUnit

_REMEMBERED = 100_000
_REMEMBERED_CHANGES = 1000


class GroupThresholds:
    """Implements metering's `Thresholds` and `AlertThresholds`. For one thread."""

    def __init__(self) -> None:
        self._groups: Newest[Node] = Newest()
        self._known: dict[tuple[str, str], tuple[Threshold, ...]] = {}
        self._monthly: dict[tuple[str, str], bool] = {}
        self._shares: Newest[tuple[int, ...]] = Newest()
        """By workspace, at which percents of a limit it asked for alerts."""
        self._changed: deque[str] = deque(maxlen=_REMEMBERED_CHANGES)
        self.changes = 0
        """How often a group has changed."""
        self.month_changes = 0
        """How often a group's limits on months have changed; see `months_changed`."""

    def apply(self, change: ConfigChange) -> None:
        """Take over a change; other kinds than groups and webhooks, and versions not above the known, are ignored."""
        if change.kind is ConfigKind.WEBHOOK:
            shares = change.record.usage_alerts if isinstance(change.record, WebhookRecord) else None
            self._shares.put(change.id, change.version, shares)
            return
        node = Node.of(change.record) if isinstance(change.record, GroupRecord) else None
        before = self._groups.get(change.id)
        if change.kind is ConfigKind.GROUP and self._groups.put(change.id, change.version, node):
            self.changes += 1
            self._known.clear()
            self._monthly.clear()
            if node is not None and before is not None and _on_months(node) - _on_months(before):
                self._changed.append(change.id)
                self.month_changes += 1

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        """Return the thresholds that are compared with this counter; empty where it or an ancestor is gone."""
        known = self._known.get((group_id, model_slug))
        if known is not None:
            return known
        chain = limit_tree.chain(group_id, self._groups.get)
        thresholds = limit_tree.thresholds(chain, model_slug) if chain else ()
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[group_id, model_slug] = thresholds
        return thresholds

    def is_monthly(self, group_id: str, model_slug: str) -> bool:
        """Whether the month's sum of this counter is to be told."""
        known = self._monthly.get((group_id, model_slug))
        if known is not None:
            return known
        chain = limit_tree.chain(group_id, self._groups.get)
        monthly = bool(chain) and limit_tree.is_monthly(chain, model_slug)
        if len(self._monthly) >= _REMEMBERED:
            self._monthly.clear()
        self._monthly[group_id, model_slug] = monthly
        return monthly

    def alerted(self, group_id: str) -> AlertedGroup | None:
        """Return whom an alert of this group is for; None where nobody asked for any, or the group is gone."""
        group = self._groups.get(group_id)
        shares = None if group is None else self._shares.get(group.workspace_id)
        return AlertedGroup(group.workspace_id, group.external_entity_id, shares) if group and shares else None

    def months_changed(self, since: int, group_id: str) -> bool:
        """Whether a limit on months that may hold for a group came or changed after the first `since` changes.

        A group that is made with such a limit has used nothing yet, so it is no change.
        """
        count = self.month_changes - since
        if count > len(self._changed):
            return True  # more than is remembered
        newest = set(islice(reversed(self._changed), count))
        return any(group.id in newest for group in limit_tree.chain(group_id, self._groups.get))


def _on_months(record: Node) -> set[tuple[str, UsageLimit]]:
    return {
        (model.slug, limit)
        for model in record.models
        for limit in model.usage_limits
        if limit.unit is UsageLimitUnit.MONTH
    }
