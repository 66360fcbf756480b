"""The day thresholds of groups, from the configuration feed.

Never refuses to count: an unknown group has no thresholds, and its events are counted all the same (contract 2.2).
"""

from domain import limit_tree
from domain.limit_tree import Node, Threshold
from runtime.config.newest import Newest
from schemas.config import ConfigChange, ConfigKind, GroupRecord

_REMEMBERED = 100_000


class GroupThresholds:
    """Implements metering's `Thresholds` over group records. For one thread."""

    def __init__(self) -> None:
        self._groups: Newest[Node] = Newest()
        self._known: dict[tuple[str, str], tuple[Threshold, ...]] = {}

    def apply(self, change: ConfigChange) -> None:
        """Take over a change; other kinds than groups, and versions at or below the known one, are ignored."""
        node = Node.of(change.record) if isinstance(change.record, GroupRecord) else None
        if change.kind is ConfigKind.GROUP and self._groups.put(change.id, change.version, node):
            self._known.clear()

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        """Return the day thresholds that are compared with this counter; empty where it or an ancestor is gone."""
        known = self._known.get((group_id, model_slug))
        if known is not None:
            return known
        chain = limit_tree.chain(group_id, self._groups.get)
        thresholds = limit_tree.day_thresholds(chain, model_slug) if chain else ()
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[group_id, model_slug] = thresholds
        return thresholds
