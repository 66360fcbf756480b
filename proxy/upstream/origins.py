"""Where calls of upstreams go: URLs taken apart, the origins they name, and each origin's addresses, checked.

A connection is made to, and kept at, an address that the last check found.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.core.calls import Failure
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.known_heads import KnownHeads
from runtime import ssrf_guard, version
from runtime.lookups import Lookups

RECHECK_S = 60
"""After this an origin's addresses are looked up and checked again, in the background."""
STALE_S = 180
"""After this the old addresses are used no more, and the request waits for the check."""
MAX_KEPT = 1024
"""How many connections of an origin are kept for a next request; beyond it the oldest is ended."""

UNUSED_ORIGINS = 1024
"""Beyond so many, or twice as many as are in use, those that are not are forgotten. Those in use refuse nobody."""
_MAX_TARGETS = 8192
_WARN_EVERY_S = 60

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Origin:
    """One scheme, host and port. A lab's and the operator's are two though they be the same: other rules hold."""

    place: ssrf_guard.ParsedUrl
    by_operator: bool
    addresses: tuple[str, ...] = ()
    """In the order in which they are tried."""
    checked_at: float = -math.inf
    kept: list[UpstreamConnection] = field(default_factory=list)
    """Connections that wait for a request, the one used last at the end."""
    connections: set[UpstreamConnection] = field(default_factory=set)
    """All, those that are being made included."""
    known: KnownHeads = field(default_factory=KnownHeads)
    """How its answers begin."""
    check: asyncio.Task[None] | None = None
    """The look-up under way."""
    problem: str = ""
    """What was said of it last."""
    said_at: float = -math.inf

    def take(self) -> UpstreamConnection | None:
        """Return a kept connection that is open, the one used last; None: there is none."""
        while self.kept:
            connection = self.kept.pop()
            if connection.is_open:
                return connection
        return None

    def keep(self, connection: UpstreamConnection) -> None:
        """Take back a connection that may be used again."""
        if connection.address not in self.addresses:
            connection.end("its address was given up")
            return
        self.kept.append(connection)
        if len(self.kept) > MAX_KEPT:
            self.kept[0].end("too many are kept")

    def forget(self, connection: UpstreamConnection) -> None:
        """Note that a connection has ended."""
        self.connections.discard(connection)
        if connection in self.kept:
            self.kept.remove(connection)

    def use(self, found: list[str], now_s: float) -> None:
        """Take checked addresses; the one that is called stays first while it is among them."""
        current = [address for address in self.addresses[:1] if address in found]
        self.addresses = (*current, *(address for address in found if address not in current))
        self.checked_at = now_s
        for connection in [each for each in self.kept if each.address not in found]:
            connection.end("its address was given up")

    def call_first(self, address: str) -> None:
        """Let the next connections be made to this address, and to those before it only when it fails."""
        if address in self.addresses:
            turn = self.addresses.index(address)
            self.addresses = self.addresses[turn:] + self.addresses[:turn]


class UrlParts(NamedTuple):
    """A URL that was taken apart."""

    origin: Origin
    head: bytes
    """A request's head, as far as it is the same for each that posts JSON."""
    path: str
    common_lines: bytes
    """The header lines of all requests."""


class Origins:
    """The origins of a proxy.

    A lab's URL is judged by what labs are allowed; the operator's own may be http, and name a port.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        look_up_timeout_s: float,
        monotonic: Callable[[], float],
        lookups: Lookups,
    ) -> None:
        self._lookups = lookups
        self._allow_private = allow_private
        self._look_up_timeout_s = look_up_timeout_s
        self._monotonic = monotonic
        self._user_agent = version.user_agent("tollgate")
        self._origins: dict[tuple[str, str, int, bool], Origin] = {}
        self._targets: dict[tuple[str, bool], UrlParts] = {}
        self._forget_at = UNUSED_ORIGINS

    def __len__(self) -> int:
        return len(self._origins)

    def target(self, url: str, *, by_operator: bool) -> UrlParts | Failure:
        """Take a URL apart; one that was met before costs a look into a dictionary."""
        found = self._targets.get((url, by_operator))
        return found if found is not None else self._read(url, by_operator=by_operator)

    async def freshen(self, origin: Origin, workspace_id: str) -> Failure | None:
        """Begin to check an origin's addresses anew, and wait for it where the old ones must not be used any more.

        The look-up is of the workspace's share.
        """
        check = origin.check
        if check is None:
            check = origin.check = asyncio.get_running_loop().create_task(self._check(origin, workspace_id))
            check.add_done_callback(lambda done: self._checked(origin, done))
        if self._monotonic() - origin.checked_at < STALE_S:
            return None
        try:
            await asyncio.shield(check)  # others may wait for it too
        except (ssrf_guard.AddressRefusedError, ValueError):  # the latter of a name that no resolver takes
            return Failure.REFUSED_ADDRESS
        except OSError as error:
            return Failure.CONNECT_TOO_SLOW if isinstance(error, TimeoutError) else Failure.UNREACHABLE
        return None

    def warn(self, origin: Origin, problem: str) -> None:
        """Say what is wrong with an upstream, the same of the same one at most every `_WARN_EVERY_S`."""
        now = self._monotonic()
        if problem != origin.problem or now - origin.said_at >= _WARN_EVERY_S:
            origin.problem, origin.said_at = problem, now
            log.warning("upstream %s://%s: %s", origin.place.scheme, origin.place.authority, problem)

    @property
    def count(self) -> int:
        """How many connections there are, those that are being made included."""
        return sum(len(origin.connections) for origin in self._origins.values())

    def connections(self) -> list[UpstreamConnection]:
        """Return all connections, those that are being made included."""
        return [connection for origin in self._origins.values() for connection in origin.connections]

    def oldest_kept(self) -> UpstreamConnection | None:
        """Return a kept connection, the first of its origin; None: there is none."""
        kept = (connection for origin in self._origins.values() for connection in origin.kept)
        return next((connection for connection in kept if connection.is_open), None)

    async def close(self) -> None:
        """End the look-ups under way."""
        checks = [origin.check for origin in self._origins.values() if origin.check is not None]
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    def _read(self, url: str, *, by_operator: bool) -> UrlParts | Failure:
        try:
            place = ssrf_guard.parse_url(url, allow_private=by_operator or self._allow_private)
        except ssrf_guard.AddressRefusedError as error:
            log.debug("an upstream's URL may not be called: %s", error)
            return Failure.REFUSED_ADDRESS
        key = (place.scheme, place.host, place.port, by_operator)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= self._forget_at:
                self._forget_unused()
            origin = self._origins[key] = Origin(place, by_operator)
        common = f"host: {place.authority}\r\nuser-agent: {self._user_agent}\r\n".encode("ascii")
        head = b"POST %b HTTP/1.1\r\n%bcontent-type: application/json\r\naccept: */*\r\n" % (
            place.target.encode("ascii"),
            common,
        )
        if len(self._targets) >= _MAX_TARGETS:
            self._targets.clear()
        target = self._targets[url, by_operator] = UrlParts(origin, head, place.target, common)
        return target

    def _forget_unused(self) -> None:
        """Forget what has neither a connection nor a look-up: of the others there are as many as those are bounded."""
        self._origins = {key: each for key, each in self._origins.items() if each.connections or each.check}
        self._targets.clear()  # they hold origins
        self._forget_at = max(UNUSED_ORIGINS, 2 * len(self._origins))  # so that it is not done for each new one

    async def _check(self, origin: Origin, workspace_id: str) -> None:
        place, resolver = origin.place, self._lookups.of(workspace_id)
        async with asyncio.timeout(self._look_up_timeout_s):
            found = await ssrf_guard.resolve(
                place.host, place.port, allow_private=self._allow_private, resolver=resolver
            )
        origin.use(found, self._monotonic())

    def _checked(self, origin: Origin, check: asyncio.Task[None]) -> None:
        origin.check = None
        if not check.cancelled() and (error := check.exception()) is not None:  # the old addresses hold until STALE_S
            self.warn(origin, f"its addresses may not be called or are not known: {_said(error)}")


def _said(error: BaseException) -> str:
    """Return what the operator reads in the log."""
    return error.detail if isinstance(error, ssrf_guard.AddressRefusedError) else str(error) or type(error).__name__
