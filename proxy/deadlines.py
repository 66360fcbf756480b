"""Bounds every wait of one request, and how long its upstream is read on once its client has gone (contract 3)."""

import asyncio
import math
from types import TracebackType
from typing import Self

import msgspec

from runtime.deadlines import Deadlines
from runtime.shares import Shares
from schemas.usage import Outcome


class Drains:
    """How long, and how many at once, upstreams are read on for clients that have gone. Times in seconds."""

    def __init__(self, drain_s: float, most: int, share: float = 1.0) -> None:
        """`share` is what one workspace may have of the `most`."""
        self._drain_s = drain_s
        self._places = Shares(most, share)

    @property
    def open(self) -> int:
        """Return how many there are."""
        return self._places.taken

    def begin(self, workspace_id: str) -> float:
        """Return the seconds that the next one has: none where too many are open."""
        return 0.0 if self._places.take(workspace_id) else self._drain_s

    def end(self, workspace_id: str) -> None:
        """Note that one has ended."""
        self._places.give_back(workspace_id)


class Deadline(msgspec.Struct, eq=False):
    """A time bound around one request that moves with each thing expected; the process's one tick notices its end.

    When it is over, the body of its ``with`` is cancelled and TimeoutError raised behind it.
    """

    _drains: Drains
    _deadlines: Deadlines
    within_s: float = math.inf
    """Bounds all waits together."""
    workspace_id: str = ""
    gone: bool = False
    """Whether the client has gone away."""
    for_client: bool = False
    """Whether it is the client that is waited for, to take what it was sent."""
    due: float = math.inf
    _draining: bool = False
    _entered: bool = False
    _expired: bool = False
    _latest: float = math.inf
    _task: asyncio.Task[object] | None = None
    _cancelling: int = 0

    @property
    def outcome(self) -> Outcome:
        """Return whose doing it is, if it is over now."""
        return Outcome.CLIENT_DISCONNECTED if self.gone or self.for_client else Outcome.UPSTREAM_ERROR

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._deadlines.loop)
        if task is None:
            raise RuntimeError("a bound belongs to a task")
        self._task, self._cancelling = task, task.cancelling()
        self._entered = True
        self._deadlines.watch(self)
        self._latest = self._deadlines.now + self.within_s
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        self._deadlines.forget(self)
        if self._draining:
            self._drains.end(self.workspace_id)
        # as asyncio.timeout does it: a cancellation from elsewhere goes on
        if (
            self._expired
            and self._task is not None
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def expect(self, within_s: float, *, for_client: bool = False) -> None:
        """Bound the next wait."""
        self.for_client = for_client
        due, latest = self._deadlines.now + within_s, self._latest
        self.due = due if due < latest else latest  # noqa: FURB136 - a third of the cost of `min`

    def client_gone(self) -> None:
        """Note that the client has gone: from now on only the drain's time is left."""
        if self.gone or not self._entered:
            return
        self.gone = True
        drain_s = self._drains.begin(self.workspace_id)
        self._draining = drain_s > 0
        self._latest = min(self._latest, self._deadlines.now + drain_s)
        self.due = min(self.due, self._latest)
        if not drain_s:  # not from here: this may be the task's own call, and it would find the cancellation later
            self._deadlines.loop.call_soon(self.overdue)

    def overdue(self) -> None:
        """End the body: its time is over."""
        self.due = math.inf
        if self._task is not None and self._entered and not self._expired:
            self._expired = True
            self._task.cancel()
