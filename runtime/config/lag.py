"""How long changes of the configuration take from their commit until this process has applied them (contract 2)."""

from collections.abc import Callable

from runtime.clock import Clock
from runtime.telemetry.metrics import Histogram, Telemetry
from schemas.config import ConfigChange

_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The promise is 1 s, and 60 s at the very most."""


class Propagation:
    """Measures with this machine's clock and control's: between two machines it is as good as they agree."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._delays_s = Histogram(_BOUNDS_S)

    def applied(self, change: ConfigChange) -> None:
        """Note a change that was applied just now for the first time; one without a time of commit is not measured."""
        if change.at is not None:
            self._delays_s.observe(max(0.0, (self._clock() - change.at).total_seconds()))

    def register_metrics(self, telemetry: Telemetry, version: Callable[[], int]) -> None:
        """Show the delays, and the newest version that is in force here."""
        telemetry.histogram(
            "tollgate_config_propagation_seconds",
            "Seconds from a configuration change's commit until it was in force here; what is read at start is not in.",
            self._delays_s,
        )
        telemetry.gauge("tollgate_config_version", "Newest version of the configuration that is known here.", version)
