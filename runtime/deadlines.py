"""Watches deadlines without a timer for each: they are numbers, and one timer of the event loop walks them.

A deadline that has passed is noticed up to `TICK_S` later. Setting one costs an assignment.
"""

import asyncio
from functools import cached_property
from typing import Protocol

TICK_S = 0.1


class Watched(Protocol):
    """Something that waits, or may have to."""

    due: float
    """When it is overdue, in seconds of the event loop's clock; `math.inf` while it waits for nothing."""

    def overdue(self) -> None:
        """Take note that the time is over. Called at each tick until `due` is moved."""


class Deadlines:
    """The deadlines of one event loop."""

    def __init__(self) -> None:
        self.now = 0.0
        """The event loop's time at the last tick. Right to `TICK_S` while anything is watched."""
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop: asyncio itself asks the system for the process's id before it says which one runs."""
        return asyncio.get_running_loop()

    def watch(self, item: Watched) -> None:
        """Call its `overdue` when its deadline has passed, until it is forgotten."""
        self._watched.add(item)
        if self._timer is None:
            self.now = self.loop.time()
            self._timer = self.loop.call_later(TICK_S, self._tick)

    def forget(self, item: Watched) -> None:
        """Watch it no longer, if it was watched."""
        self._watched.discard(item)

    def _tick(self) -> None:
        # The next tick is arranged first: what an item raises goes to the loop's handler, and ends no other's watch.
        self._timer = self.loop.call_later(TICK_S, self._tick) if self._watched else None
        self.now = now = self.loop.time()
        for item in [each for each in self._watched if each.due <= now]:
            item.overdue()
