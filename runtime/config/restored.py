"""Notices that the relay's database was restored and `tollgate restore-done` was not typed (counting 9)."""

import logging
from collections.abc import Sequence

from schemas.topics import GATEWAY_CONFIG

_IN_A_ROW = 2
"""A relay that was stopped for a while and has a successor may write one old heartbeat late."""

log = logging.getLogger(__name__)


def advice(told: int, known: int) -> str:
    """Say what to do where the database is at the version `told` and the topic holds `known`, which is higher."""
    return (
        f"{GATEWAY_CONFIG} holds version {known}, and the database is at {told}: it was restored, and no change is "
        "believed until versions are higher again; stop control, metering and webhooks, type `tollgate restore-done`, "
        'and start them (docs/operate.md, "Restore")'
    )


class RestoreWatch:
    """Compares the relay's heartbeats with what was known before, and warns once."""

    def __init__(self) -> None:
        self._below = 0

    def heard(self, heartbeats: Sequence[int], known: int) -> None:
        """Take the next heartbeats' versions; `known` is the highest version that was heard of before."""
        for version in heartbeats:
            self._below = self._below + 1 if version < known else 0
            known = max(known, version)
            if self._below == _IN_A_ROW:
                log.warning("%s", advice(version, known))
