"""What a process shows of itself at ``/metrics``, as Prometheus text (contract 6)."""

import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

PATH = "/metrics"

log = logging.getLogger(__name__)

Reading = float | Mapping[str, float]
"""One number, or one for each value of a label."""

Read = Callable[[], Reading | Awaitable[Reading]]
"""Return the present numbers, on the event loop; it must not wait for another machine."""


class Histogram:
    """Counts values by upper bounds, each inclusive; the library's own shows the time of its making as a metric."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, help_: str) -> Metric:
        """Return it as the library writes it: each bucket counts what lies below it too."""
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        return HistogramMetricFamily(name, help_, buckets=buckets, sum_value=self._sum)


class Telemetry(Collector):
    """The metrics of one process; a name may be shown once."""

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], Awaitable[Metric]]] = {}
        self._read: list[Metric] = []
        self._failing: set[str] = set()
        """Whose reader failed last time, which the log has heard."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def gauge(self, name: str, help_: str, read: Read, label: str | None = None) -> None:
        """Show what goes up and down; `read` gives a mapping where there is a `label`."""
        self._show(name, help_, read, GaugeMetricFamily, label)

    def counter(self, name: str, help_: str, read: Read, label: str | None = None) -> None:
        """Show what was counted since the process started."""
        self._show(name, help_, read, CounterMetricFamily, label)

    def histogram(self, name: str, help_: str, histogram: Histogram) -> None:
        """Show a histogram."""

        async def family() -> Metric:
            return histogram.family(name, help_)

        self._add(name, family)

    def collect(self) -> Iterable[Metric]:
        """Return the library what was read last."""
        return self._read

    async def text(self) -> bytes:
        """Read everything and write it as Prometheus text."""
        found = [await self._family(name) for name in self._readers]
        self._read = [family for family in found if family is not None]
        return generate_latest(self._registry)

    async def _family(self, name: str) -> Metric | None:
        """Read one; None where its reader fails: the others are needed most when something is wrong."""
        try:
            family = await self._readers[name]()
        except Exception:
            if name not in self._failing:
                log.exception("%s is left out of %s: its reader failed", name, PATH)
            self._failing.add(name)
            return None
        self._failing.discard(name)
        return family

    def _show(
        self,
        name: str,
        help_: str,
        read: Read,
        kind: type[GaugeMetricFamily | CounterMetricFamily],
        label: str | None,
    ) -> None:
        async def family() -> Metric:
            found = read()
            reading = await found if isawaitable(found) else found
            made = kind(name, help_, labels=[] if label is None else [label])
            values = reading.items() if isinstance(reading, Mapping) else [(None, reading)]
            for value, number in values:
                made.add_metric([] if value is None else [value], number)
            return made

        self._add(name, family)

    def _add(self, name: str, read: Callable[[], Awaitable[Metric]]) -> None:
        if name in self._readers:
            raise ValueError(f"{name} is shown twice")
        self._readers[name] = read
