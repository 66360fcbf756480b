"""Counts what became of the calls of each workspace, group and slug, and how long they took (docs/metrics.md).

Costs a plain request a look into a dictionary and a few additions. Never grows beyond its bounds: what comes later than
the first `MOST_CELLS` of a process is counted together. Not money: that is the ledger's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from runtime.telemetry.metrics import Histogram, Telemetry
from schemas.monitoring.status import MOST_CALLS, OUTCOMES, OWN_S, WHOLE_S, CallCounts, LatencyCounts

MOST_CELLS = MOST_CALLS - 1
MOST_SHOWN = 100
"""Pairs of workspace and slug that have series of their own."""
OTHER = "other"

_PLACES = {outcome: place for place, outcome in enumerate(OUTCOMES)}


@dataclass(slots=True)
class Cell:
    """The calls of one group and slug since the process began, or of several. Times in seconds."""

    outcomes: list[int] = field(default_factory=lambda: [0] * len(OUTCOMES))
    whole: Histogram = field(default_factory=lambda: Histogram(WHOLE_S))
    """From admission to the client's last byte."""
    first_byte: Histogram = field(default_factory=lambda: Histogram(WHOLE_S))
    """From admission to the upstream's first byte."""
    own: Histogram = field(default_factory=lambda: Histogram(OWN_S))
    """What the gateway itself took, before the upstream was called and after its last byte."""

    def add(self, other: "Cell") -> None:
        """Add another's counts."""
        self.outcomes = [mine + theirs for mine, theirs in zip(self.outcomes, other.outcomes, strict=True)]
        self.whole.add(other.whole)
        self.first_byte.add(other.first_byte)
        self.own.add(other.own)

    def since(self, before: "Cell") -> "Cell":
        """Return what was counted after `before`, an earlier copy of this cell."""
        outcomes = [now - then for now, then in zip(self.outcomes, before.outcomes, strict=True)]
        parts = ((self.whole, before.whole), (self.first_byte, before.first_byte), (self.own, before.own))
        return Cell(outcomes, *(now.since(then) for now, then in parts))

    def counts(self, key: tuple[str, str, str]) -> CallCounts:
        """Return it as other processes read it."""
        workspace_id, group_id, slug = key
        return CallCounts(
            workspace_id=workspace_id,
            group_id=group_id,
            slug=slug[:255],
            outcomes={outcome: count for outcome, count in zip(OUTCOMES, self.outcomes, strict=True) if count},
            whole=_latency(self.whole),
            first_byte=_latency(self.first_byte),
            own=_latency(self.own),
        )


class Tally:
    """The cells of one proxy, by workspace, group and slug."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, str], Cell] = {}
        self._shown: dict[tuple[str, str], None] = {}
        self._taken: dict[tuple[str, str, str], Cell] = {}

    def cell(self, workspace_id: str, group_id: str, slug: str) -> Cell:
        """Return the cell of a group's calls of a slug; empty texts where one is not known."""
        found = self._cells.get((workspace_id, group_id, slug))
        return self._new(workspace_id, group_id, slug) if found is None else found

    def take(self) -> list[CallCounts]:
        """Return what was counted since the last time, at most MOST_CALLS."""
        taken = []
        for key, cell in self._cells.items():
            before = self._taken.get(key)
            if before is None or before.outcomes != cell.outcomes:  # each call that ends has an outcome
                since = cell if before is None else cell.since(before)
                taken.append(since.counts(key))
                copy = Cell()
                copy.add(cell)
                self._taken[key] = copy
        return taken

    @property
    def cells(self) -> Mapping[tuple[str, str, str], Cell]:
        """All of them."""
        return self._cells

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show outcomes and times by workspace and slug."""
        labels = ("workspace", "slug")
        telemetry.counter(
            "tollgate_calls_total",
            "Calls by workspace, slug and outcome.",
            lambda: {
                (*pair, outcome): cell.outcomes[place]
                for pair, cell in self._by_pair()
                for outcome, place in _PLACES.items()
                if cell.outcomes[place]
            },
            (*labels, "outcome"),
        )
        telemetry.histograms(
            "tollgate_call_seconds",
            "From admission to the client's last byte.",
            lambda: {pair: cell.whole for pair, cell in self._by_pair()},
            labels,
        )
        telemetry.histograms(
            "tollgate_call_first_byte_seconds",
            "From admission to the upstream's first byte.",
            lambda: {pair: cell.first_byte for pair, cell in self._by_pair()},
            labels,
        )
        telemetry.histograms(
            "tollgate_call_own_seconds",
            "What the gateway itself added: before the upstream was called and after its last byte.",
            lambda: {pair: cell.own for pair, cell in self._by_pair()},
            labels,
        )

    def _new(self, workspace_id: str, group_id: str, slug: str) -> Cell:
        key = (workspace_id, group_id, slug)
        if len(self._cells) >= MOST_CELLS:
            key = (OTHER, OTHER, OTHER)
        return self._cells.setdefault(key, Cell())

    def _by_pair(self) -> Iterable[tuple[tuple[str, str], Cell]]:
        """Return the sums by workspace and slug; a pair that has a series of its own keeps it."""
        sums: dict[tuple[str, str], Cell] = {}
        for (workspace_id, _, slug), cell in self._cells.items():
            pair = (workspace_id, slug)
            if pair not in self._shown and len(self._shown) >= MOST_SHOWN:
                pair = (OTHER, OTHER)
            else:
                self._shown[pair] = None
            sums.setdefault(pair, Cell()).add(cell)
        return sums.items()


def place(outcome: str) -> int:
    """Return where an outcome stands in a cell."""
    return _PLACES[outcome]


def _latency(histogram: Histogram) -> LatencyCounts:
    return LatencyCounts(counts=tuple(histogram.counts), sum_s=histogram.sum)
