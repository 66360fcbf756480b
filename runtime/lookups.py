"""Look-ups of host names by the system's resolver, each in a thread of its own, so many at once and no more.

The event loop's own are four threads for everybody, and a name server that does not answer holds one for half a minute:
four such names kept every other lab's deliveries from being made. A thread that hangs cannot be ended, so it counts
until it ends, also where nobody waits for it any more (ADR 33).

Who waits does so until a deadline, and nobody waits for the same name again while its thread hangs (ADR 45).
"""

import asyncio
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from runtime.clock import Steady

AT_ONCE = 64
"""Look-ups of a process under way at once: threads that sleep."""

SHARE = 0.25
"""What one workspace may have of these."""

WITHIN_S = 5.0
"""How long a look-up is waited for. One that took longer is answered so at once until its thread has ended."""

NEGATIVE_S = 2.0
"""How long a name that was not found is not asked for again: less than the pause between a delivery's attempts."""

_NEGATIVE_MOST = 1024

Ask = Callable[[str, int], Sequence[Any]]
_Question = tuple[str, str, int]


class Lookups:
    """Bounded look-ups. For one event loop."""

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        share: float = SHARE,
        within_s: float = WITHIN_S,
        ask: Ask | None = None,
        steady: Steady = time.monotonic,
    ) -> None:
        """`ask` blocks, and gives what `socket.getaddrinfo` does."""
        self._within_s = within_s
        self._steady = steady
        self._failed: OrderedDict[_Question, tuple[float, OSError]] = OrderedDict()
        """What was not found, and until when that is believed."""
        self._at_once = at_once
        self._of_one = max(1, int(at_once * share))
        self._ask = ask or _ask
        self._busy: Counter[str] = Counter()
        self._under_way: dict[_Question, asyncio.Future[list[str]]] = {}

    def of(self, workspace_id: str) -> Callable[[str, int], Coroutine[Any, Any, list[str]]]:
        """Return a resolver (`runtime.ssrf_guard`) whose look-ups count as that workspace's.

        It raises OSError, also where too many are under way; TimeoutError where the name server is too slow.
        """
        return lambda host, port: self._look_up((workspace_id, host, port))

    async def _look_up(self, place: _Question) -> list[str]:
        believed_until_s, failure = self._failed.get(place, (0.0, None))
        if failure is not None and self._steady() < believed_until_s:
            raise type(failure)(*failure.args)
        found = self._under_way.get(place) or self._begin(place)
        if found.done() and (late := found.exception()) is not None:
            raise type(late)(*late.args)  # one of its own for each, or its traceback would grow
        return await asyncio.shield(found)  # who gives up must not take the others' answer with him

    def _begin(self, place: _Question) -> asyncio.Future[list[str]]:
        workspace_id = place[0]
        if self._busy[workspace_id] >= self._of_one:
            raise OSError(f"{self._of_one} look-ups of this workspace are under way already")
        if self._busy.total() >= self._at_once:
            raise OSError(f"{self._at_once} look-ups are under way already")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()
        found.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # seen, if nobody waits for it
        # A daemon: a process that ends does not wait for name servers.
        threading.Thread(target=self._run, args=(loop, place, found), name="look-up", daemon=True).start()
        self._busy[workspace_id] += 1
        self._under_way[place] = found
        late = loop.call_later(self._within_s, self._is_late, place, found)
        found.add_done_callback(lambda _: late.cancel())
        return found

    def _run(self, loop: asyncio.AbstractEventLoop, place: _Question, found: asyncio.Future[list[str]]) -> None:
        addresses: list[str] = []
        failure: OSError | None = None
        try:
            addresses = [str(address[0]) for *_, address in self._ask(*place[1:])]
        except (OSError, UnicodeError) as error:
            failure = error if isinstance(error, OSError) else OSError(str(error))
        with suppress(RuntimeError):  # the loop is closed: the process has ended
            loop.call_soon_threadsafe(self._ended, place, found, addresses, failure)

    def _is_late(self, place: _Question, found: asyncio.Future[list[str]]) -> None:
        if not found.done():
            found.set_exception(TimeoutError(f"{place[1]} was not looked up within {self._within_s:g} s"))

    def _ended(
        self, place: _Question, found: asyncio.Future[list[str]], addresses: list[str], failure: OSError | None
    ) -> None:
        self._busy[place[0]] -= 1
        self._busy += Counter()  # those at zero go
        del self._under_way[place]
        self._failed.pop(place, None)
        if failure is not None:
            self._failed[place] = self._steady() + NEGATIVE_S, failure
            if len(self._failed) > _NEGATIVE_MOST:
                self._failed.popitem(last=False)
        if found.done():  # nobody waits any more, or it was late
            return
        if failure is None:
            found.set_result(addresses)
        else:
            found.set_exception(failure)


def _ask(host: str, port: int) -> Sequence[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
