"""What a metering worker shows of itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runtime.telemetry.metrics import Telemetry


@dataclass(frozen=True, slots=True)
class Counts:
    """Where the figures are read, each since the start."""

    lag: Callable[[], Mapping[int, int]]
    """Offsets still to count, by partition."""
    counted: Callable[[], int]
    put_aside: Callable[[], int]
    too_large: Callable[[], int]
    mended: Callable[[], int]
    missing: Callable[[], int]


def register(telemetry: Telemetry, counts: Counts) -> None:
    """Show them."""
    telemetry.gauge(
        "tollgate_metering_lag_events",
        "Offsets still to count in a partition of this worker, as of a few seconds ago.",
        lambda: {str(partition): lag for partition, lag in counts.lag().items()},
        "partition",
    )
    for name, meaning, read in (
        ("events", "Usage events counted, repeats among them.", counts.counted),
        ("unreadable", "Records put aside as unreadable.", counts.put_aside),
        ("untold", "Totals too large for a record, so not told.", counts.too_large),
        ("told_again", "Totals told again because another worker had written late.", counts.mended),
        ("missing", "Offsets whose records were gone uncounted.", counts.missing),
    ):
        telemetry.counter(f"tollgate_metering_{name}_total", meaning, read)
