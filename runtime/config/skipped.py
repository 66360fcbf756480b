"""Counts and tells what of the configuration a process could not read or apply: what it knew before stays in force."""

import time
from collections.abc import Callable

from runtime.config.newer import LeftOutError
from runtime.kafka.feed import SkippedRecords
from runtime.telemetry.metrics import Telemetry


class SkippedChanges:
    """The changes of `source`, a topic's or the log's name, that were skipped or read in part since its start."""

    def __init__(self, source: str, steady: Callable[[], float] = time.monotonic) -> None:
        self._unreadable = SkippedRecords(source, steady)
        self._left_out = SkippedRecords(source, steady, "limits or fields of a newer version, taking the rest")

    def skip(self, place: str, error: Exception) -> None:
        """Count one, at `place`: of a LeftOutError only a part is missing. The first is logged at once."""
        if isinstance(error, LeftOutError):
            self._left_out.skip(f"{place} ({error})", error)
        else:
            self._unreadable.skip(place, error)

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show how many there were."""
        telemetry.counter(
            "tollgate_config_unreadable_total",
            "Changes of the configuration that could not be read or applied here, or not as a whole.",
            lambda: self._unreadable.count + self._left_out.count,
        )
