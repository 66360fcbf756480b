"""What one workspace, and one key, may take of a proxy: requests in flight, bodies, answers, time to read bodies.

A holder is refused beyond its share, and where all of them together have the whole.
"""

from collections.abc import Callable

import msgspec

from proxy.core import replies
from proxy.core.calls import BrokenOffError, Key
from proxy.core.replies import Reply
from runtime import shares
from runtime.shares import Excess, Rates

UNCOUNTED_BYTES = 64 * 1024
"""Of each body and each answer: what is bounded by the number of requests in flight is not counted by its bytes."""
_KEYS_OF_WORKSPACE = 4
_WORKSPACES_OF_PROCESS = 4
"""What a workspace may have read in a second is that of so many keys, what all may that of so many workspaces."""


class ReadingRates:
    """How many bytes of large bodies are read in a second: for each key, for each workspace and for all."""

    def __init__(self, bytes_per_s: int, burst_bytes: int, now_s: Callable[[], float]) -> None:
        self._keys = Rates(bytes_per_s, burst_bytes, now_s)
        share = bytes_per_s * _KEYS_OF_WORKSPACE
        self._workspaces = Rates(share, max(share, burst_bytes), now_s)
        whole = share * _WORKSPACES_OF_PROCESS
        self._whole = Rates(whole, max(whole, burst_bytes), now_s)

    def take(self, key: Key, size: int) -> Excess | None:
        """Take the reading of one body, or return which bound is reached."""
        if size <= UNCOUNTED_BYTES:
            return None
        if not (self._keys.has(key.prefix, size) and self._workspaces.has(key.workspace_id, size)):
            return Excess.OWN
        if not self._whole.has("", size):
            return Excess.WHOLE
        self._keys.use(key.prefix, size)
        self._workspaces.use(key.workspace_id, size)
        self._whole.use("", size)
        return None


class AnswersFullError(BrokenOffError):
    """As much of answers is held as may be, so that this one cannot be gathered."""

    def __init__(self, excess: Excess) -> None:
        super().__init__("as much of answers is held as may be")
        self.excess = excess


class AnswerRoom(msgspec.Struct, eq=False):
    """What one answer holds of its workspace's share while it is gathered."""

    _answers: shares.Shares
    _workspace_id: str
    _held: int = 0

    def hold(self, size: int) -> None:
        """Hold room for `size` bytes in all. Raise AnswersFullError."""
        if size <= UNCOUNTED_BYTES and not self._held:
            return
        more = size - self._held
        if more > 0:
            excess = self._answers.take(self._workspace_id, more)
            if excess is not None:
                raise AnswersFullError(excess)
        else:
            self._answers.give_back(self._workspace_id, -more)
        self._held = size

    def close(self) -> None:
        """Give it back."""
        if self._held:
            self._answers.give_back(self._workspace_id, self._held)
            self._held = 0


class WorkspaceShares:
    """All that workspaces and keys share of one proxy, except for bodies, which the port counts while they come."""

    def __init__(self, in_flight: shares.Shares, answers: shares.Shares, reading: ReadingRates) -> None:
        self._in_flight = in_flight
        self._answers = answers
        self._reading = reading

    def enter(self, key: Key) -> Reply | None:
        """Let a request in, before its body is read; or return what refuses it."""
        excess = self._in_flight.take(key.workspace_id)
        return None if excess is None else refused(excess, "requests in flight")

    def leave(self, key: Key) -> None:
        """Note that a request that was let in has ended."""
        self._in_flight.give_back(key.workspace_id)

    def read(self, key: Key, size: int) -> Reply | None:
        """Take the reading of a body of `size` bytes; or return what refuses it."""
        excess = self._reading.take(key, size)
        return None if excess is None else refused(excess, "bytes of large bodies a second")

    def room(self, key: Key) -> AnswerRoom:
        """Return the room of one answer, with nothing in it."""
        return AnswerRoom(self._answers, key.workspace_id)


def refused(excess: Excess, what: str) -> Reply:
    """Return the answer to what would exceed a bound: 429 for the workspace's own share, 503 for the whole."""
    return replies.share_exceeded(what) if excess is Excess.OWN else replies.full(what)
