"""Which background loops of a process go on, and what one that stands still waits for (ADR 33).

Each loop says when it has turned, how much that did, and for how long it rests now. One that says nothing for longer
makes `/readyz` fail and shows in the metrics; one that ends, ends the process (`tollgate.roles.process`). Whoever rides
out an outage says so at each try (`runtime.outage`): that is no standing still.

A loop is found by the context that its task runs in, so what it calls need not be handed it. Outside of a process that
watches, as in most tests, saying something changes nothing.
"""

import time
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from typing import TypeVar

from runtime.clock import Steady
from runtime.telemetry.metrics import Telemetry

STILL_S = 120.0
"""How long a loop may say nothing beyond the rest that it announced: longer than any one wait for a service, of which
the database's longest is 30 s and Kafka's 60 s."""

_RESTS = 9
"""How many times as long as it worked a loop rests."""

Result = TypeVar("Result")


class Loop:
    """One loop, as it was heard last."""

    def __init__(self, name: str, now_s: float) -> None:
        self.name = name
        self.did = 0
        """What it has done since it began, in its own units: events, deliveries, turns."""
        self.waits_for = "its first turn"
        self.since_s = now_s
        """Since when it waits for that, in seconds of the registry's clock."""
        self.due_at_s = now_s
        """By when it meant to be heard again."""

    def is_still(self, now_s: float) -> bool:
        """Tell whether it should have been heard long ago."""
        return now_s - self.due_at_s > STILL_S


class Loops:
    """The loops of one process."""

    def __init__(self, steady: Steady = time.monotonic) -> None:
        self._steady = steady
        self._known: dict[str, Loop] = {}

    @property
    def known(self) -> Mapping[str, Loop]:
        """Those that run, by name."""
        return self._known

    def watch(self) -> None:
        """Let what is begun from here on, in this context, be known."""
        _LOOPS.set(self)

    def problem(self) -> str | None:
        """Say which loops stand still, since when and waiting for what; None where all go on."""
        now_s = self._steady()
        still = [
            f"{one.name} stands still: it waits for {one.waits_for} since {now_s - one.since_s:.0f} s"
            for one in self._known.values()
            if one.is_still(now_s)
        ]
        return "; ".join(still) or None

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what each loop did, how long ago it was heard, and whether it stands still."""
        telemetry.counter(
            "tollgate_loop_done_total",
            "What each background loop has done, in its own units: events, deliveries or turns.",
            lambda: {name: one.did for name, one in self._known.items()},
            "loop",
        )
        telemetry.gauge(
            "tollgate_loop_overdue_seconds",
            "How long a background loop should have been heard again; 0 while it rests or works as announced.",
            lambda: {name: max(0.0, self._steady() - one.due_at_s) for name, one in self._known.items()},
            "loop",
        )
        telemetry.gauge(
            "tollgate_loops_still",
            f"Background loops that were not heard for {STILL_S:g} s beyond the rest that they announced.",
            lambda: sum(one.is_still(self._steady()) for one in self._known.values()),
        )

    def now_s(self) -> float:
        """Return the present on the clock that `since_s` and `due_at_s` are of."""
        return self._steady()

    def begin(self, name: str) -> Loop:
        """Know one more; a name that is taken gets a number."""
        free, number = name, 2
        while free in self._known:
            free, number = f"{name} {number}", number + 1
        self._known[free] = Loop(free, self._steady())
        return self._known[free]

    def end(self, one: Loop) -> None:
        """Forget one."""
        self._known.pop(one.name, None)


_LOOPS: ContextVar[Loops | None] = ContextVar("loops", default=None)
_LOOP: ContextVar[Loop | None] = ContextVar("loop", default=None)


async def run(name: str, work: Awaitable[Result]) -> Result:
    """Run `work` as a loop of that name, until it ends. It must be a task's own work, not a call among others."""
    loops = _LOOPS.get()
    if loops is None:
        return await work
    one = loops.begin(name)
    _LOOP.set(one)
    try:
        return await work
    finally:
        loops.end(one)


def turned(did: int = 1, *, rest_s: float = 0.0, waits_for: str = "its next turn") -> None:
    """Say that this task's loop has turned and did `did`, and rests for at most `rest_s`, waiting for `waits_for`."""
    loops, one = _LOOPS.get(), _LOOP.get()
    if loops is not None and one is not None:
        one.did += did
        if did or one.waits_for != waits_for:
            one.since_s = loops.now_s()
        one.waits_for = waits_for
        one.due_at_s = loops.now_s() + rest_s


def has_parts() -> None:
    """Say that this task only waits for parts of it, each run as a loop of its own: nothing is expected of itself."""
    loops, one = _LOOPS.get(), _LOOP.get()
    if loops is not None and one is not None:
        loops.end(one)
        _LOOP.set(None)


def rest_s(took_s: float, least_s: float, most_s: float) -> float:
    """Return how long to rest behind a batch that took `took_s` and was not full: so batches take a tenth of the time.

    Under load they grow instead of coming more often, and each costs the event loop of its process about the same.
    """
    return max(least_s, min(_RESTS * took_s, most_s))
