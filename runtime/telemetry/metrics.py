"""What a process shows of itself at ``/metrics``, as Prometheus text (contract 6)."""

import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

PATH = "/metrics"

log = logging.getLogger(__name__)

Labels = str | tuple[str, ...]
"""The name of a label or the value of one; several of each where a metric has several."""

Reading = float | Mapping[Any, float]
"""One number, or one for each `Labels`."""

Read = Callable[[], Reading | Awaitable[Reading]]
"""Return the present numbers, on the event loop; it must not wait for another machine."""


class Histogram:
    """Counts values by upper bounds, each inclusive; the library's own shows the time of its making as a metric."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self.counts = [0] * (len(self._bounds) + 1)
        """How many values lie in each bucket alone, the last above every bound."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def add(self, other: "Histogram") -> None:
        """Count what another has counted, by the same bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def since(self, before: "Histogram") -> "Histogram":
        """Return what was counted after `before`, an earlier copy by the same bounds."""
        made = Histogram(self._bounds)
        made.counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        made.sum = self.sum - before.sum
        return made

    def family(self, name: str, help_: str) -> Metric:
        """Return it as the library writes it: each bucket counts what lies below it too."""
        family = HistogramMetricFamily(name, help_)
        self.join(family, ())
        return family

    def join(self, family: HistogramMetricFamily, values: Sequence[str]) -> None:
        """Add it to a family, under the values of its labels."""
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        family.add_metric(values, list(zip(bounds, accumulate(self.counts), strict=True)), self.sum)


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

    def gauge(self, name: str, help_: str, read: Read, label: Labels | None = None) -> None:
        """Show what goes up and down; `read` gives a mapping where there is a `label`."""
        self._show(name, help_, read, GaugeMetricFamily, label)

    def counter(self, name: str, help_: str, read: Read, label: Labels | None = None) -> None:
        """Show what was counted since the process started."""
        self._show(name, help_, read, CounterMetricFamily, label)

    def histogram(self, name: str, help_: str, histogram: Histogram) -> None:
        """Show a histogram."""

        async def family() -> Metric:
            return histogram.family(name, help_)

        self._add(name, family)

    def histograms(
        self, name: str, help_: str, read: Callable[[], Mapping[tuple[str, ...], Histogram]], labels: tuple[str, ...]
    ) -> None:
        """Show several histograms, told apart by the values of `labels`."""

        async def family() -> Metric:
            made = HistogramMetricFamily(name, help_, labels=labels)
            for values, histogram in read().items():
                histogram.join(made, values)
            return made

        self._add(name, family)

    async def sums(self, names: Iterable[str]) -> dict[str, float]:
        """Return some gauges, each summed over its labels; those that are not shown, or fail, are absent."""
        found = {name: await self._family(name) for name in names if name in self._readers}
        return {
            name: sum(sample.value for sample in family.samples) for name, family in found.items() if family is not None
        }

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
        label: Labels | None,
    ) -> None:
        async def family() -> Metric:
            found = read()
            reading = await found if isawaitable(found) else found
            made = kind(name, help_, labels=_several(label))
            values = reading.items() if isinstance(reading, Mapping) else [(None, reading)]
            for value, number in values:
                made.add_metric(_several(value), number)
            return made

        self._add(name, family)

    def _add(self, name: str, read: Callable[[], Awaitable[Metric]]) -> None:
        if name in self._readers:
            raise ValueError(f"{name} is shown twice")
        self._readers[name] = read


def _several(labels: Labels | None) -> Sequence[str]:
    return () if labels is None else (labels,) if isinstance(labels, str) else labels
