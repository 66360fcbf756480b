"""Which lane each row of a proxy's spools lies in: its tree's, or one of several where that is busy (counting 6)."""

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from proxy.spool.spreads import Spreads
from runtime.kafka.writer import partition_of

_KNOWN = 65_536
"""Trees whose partition is remembered: working it out takes some microseconds."""

log = logging.getLogger(__name__)


class _File(Protocol):
    """A spool's file."""

    end: int
    spreads: Spreads

    def begin(self) -> int:
        """Return the lowest sequence there still is."""


class TreeLanes:
    """Of the usage topic's `partitions`; `files` are this proxy's by instance, `own` the one that is written to."""

    def __init__(self, partitions: int, files: Mapping[str, _File], own: _File) -> None:
        self.partitions = partitions
        self._files = files
        self._own = own
        self._home = lru_cache(_KNOWN)(lambda root: partition_of(root.encode(), partitions))

    def of(self, root: str, instance: str, sequence: int) -> int:
        """Return the lane of a row of the tree whose last charged group is `root`."""
        home, file = self._home(root), self._files.get(instance)
        spreads = None if file is None else file.spreads
        return spreads.lane(root, home, self.partitions, sequence) if spreads else home

    def spread(self, root: str, lanes: int) -> None:
        """Follow metering's advice: let the rows to come of a tree lie over so many lanes."""
        try:
            own = self._own
            own.spreads.spread(root, max(1, min(lanes, self.partitions)), own.end, own.begin())
        except OSError as error:  # advice: the rows lie where they lay
            log.warning("the lanes of group %s stay as they are: %s", root, error)
