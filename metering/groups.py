"""The day thresholds of groups, from the configuration feed.

Never refuses to count: an unknown group has no thresholds, and its events are counted all the same (spec 2.2).
"""

from metering.core import hierarchy
from metering.core.hierarchy import Threshold
from schemas.config import ConfigChange, ConfigKind, GroupRecord

_REMEMBERED = 100_000


class GroupThresholds:
    """Implements metering's `Thresholds` over group records. For one thread."""

    def __init__(self) -> None:
        self._groups: dict[str, GroupRecord] = {}
        self._versions: dict[str, int] = {}
        self._known: dict[tuple[str, str], tuple[Threshold, ...]] = {}

    def apply(self, change: ConfigChange) -> None:
        """Take over a change; other kinds than groups, and versions at or below the known one, are ignored."""
        if change.kind is not ConfigKind.GROUP or change.version <= self._versions.get(change.id, 0):
            return
        self._versions[change.id] = change.version  # kept for a group that is gone: its older records may come late
        if isinstance(change.record, GroupRecord):
            self._groups[change.id] = change.record
        else:
            self._groups.pop(change.id, None)
        self._known.clear()

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        """Give the day thresholds that are compared with this counter; empty where the group or an ancestor is gone."""
        known = self._known.get((group_id, model_slug))
        if known is not None:
            return known
        chain = self._chain(group_id)
        thresholds = hierarchy.day_thresholds(chain, model_slug) if chain else ()
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[group_id, model_slug] = thresholds
        return thresholds

    def _chain(self, group_id: str) -> tuple[GroupRecord, ...]:
        own = self._groups.get(group_id)
        if own is None:
            return ()
        ancestors = [self._groups.get(ancestor_id) for ancestor_id in own.ancestor_ids]
        found = tuple(ancestor for ancestor in ancestors if ancestor is not None)
        return (own, *found) if len(found) == len(ancestors) else ()
