"""Keeps the rate windows in Redis, shared by all proxies: the proxy's `Windows` port (contract 3.1, ADR 47).

Never asks twice and never waits longer than 25 ms: where Redis does not answer, the request goes by this proxy's own
windows, and day limits hold as ever. One script takes from a request's whole chain or from none of it, by Redis' own
clock. A tree's counters lie together, so one tree is bound to what one server's core carries.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from domain import amounts
from proxy.limits import rolling, windows
from proxy.limits.windows import RateChain, Refusal, Reservation, WindowLimit
from proxy.windows import scripts
from proxy.windows.memory import MemoryWindows
from runtime import loops, redis
from runtime.redis import RedisAddress, RedisConnection, RedisError
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from schemas.limits import LimitType

ANSWERS_WITHIN_S = 0.025
PAUSE_S = 1.0
"""How long nothing is asked after `_FAILURES` failures in a row, and between two tries to connect."""
_FAILURES = 3
_HEARD_EVERY_S = 30.0
_NEEDED = (
    "auth, select, role, info, script|load, evalsha, get, set, exists, del, pexpire, time, "
    "list and sorted set commands on its key prefix"
)
_MAY_EVICT = frozenset({"allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-random"})
_KINDS = frozenset(
    {
        "timeout",
        "connection",
        "busy",
        "oom",
        "loading",
        "clusterdown",
        "misconf",
        "readonly",
        "noreplicas",
        "noscript",
        "noperm",
    }
)
_GIVEN_UP_AT_ONCE = frozenset({"readonly", "loading", "clusterdown", "noauth", "noscript"})
"""What a server says that is no longer, or not yet, the one to ask; or that has forgotten the scripts."""

log = logging.getLogger(__name__)


class _Shared(Reservation, eq=False):
    """A reservation that Redis keeps."""

    root_group: str = ""


class _Seen(NamedTuple):
    """One limit's window, as the script saw it."""

    held: int
    admits_at: int
    empty_at: int

    def counted(self, _threshold: int) -> int:
        return self.held

    def admits_us(self, _threshold: int) -> int:
        return self.admits_at

    def empty_us(self, _threshold: int) -> int:
        return self.empty_at


class SharedWindows:
    """Rate windows of all proxies of one installation, or this one's own while Redis is away.

    `clock_s` stands for the server's own clock, in tests.
    """

    def __init__(
        self,
        place: RedisAddress,
        prefix: str,
        clock_s: Callable[[], float] | None = None,
        own: MemoryWindows | None = None,
    ) -> None:
        self._place = place
        self.prefix = prefix
        self._clock_s = clock_s
        self._own = own or MemoryWindows()
        self._connection: RedisConnection | None = None
        self.connected = asyncio.Event()
        """Set while Redis is asked."""
        self._failed_in_row = 0
        self.fallbacks: Counter[str] = Counter()
        """Times that Redis did not help, by why."""
        self._reserved = 0

    async def reserve(self, chain: RateChain, tokens: int, output_tokens: int = 0) -> Reservation | Refusal:
        """Take one request and `tokens` (estimated) from every limit of the chain, or nothing from any."""
        if self._connection is None or not chain.limits:
            if chain.limits:
                self.fallbacks["connection"] += 1
            return await self._own.reserve(chain, tokens, output_tokens)
        asked: asyncio.Future[Reservation | Refusal | RedisError] = asyncio.get_running_loop().create_future()

        def answered(reply: list[int] | RedisError) -> None:
            if isinstance(reply, RedisError):
                seen: Reservation | Refusal | RedisError = self._failed(reply)
            else:
                seen = _read(chain, (tokens, output_tokens), reply)
            if not asked.done():
                asked.set_result(seen)
            elif isinstance(seen, _Shared):  # too late: another window has admitted it, or nobody waits any more
                self.release(seen)

        keys, words = _reserve_words(self.prefix, chain, tokens, output_tokens)
        self._connection.send("EVALSHA", scripts.RESERVE.sha1, len(keys), *keys, self._now(), *words, answered=answered)
        came = await asked
        if isinstance(came, RedisError):
            return await self._own.reserve(chain, tokens, output_tokens)
        self._failed_in_row = 0
        self._reserved += 1
        return came

    def reserve_at_once(self, chain: RateChain, tokens: int, output_tokens: int = 0) -> Reservation | Refusal | None:
        """Do the same for a chain without limits; None: Redis has to be asked."""
        return None if chain.limits else self._own.reserve_at_once(chain, tokens, output_tokens)

    def settle(self, reservation: Reservation, tokens: int, output_tokens: int = 0) -> None:
        """Replace the estimate by what was used. A second end of a reservation is ignored; nobody waits for it."""
        if not isinstance(reservation, _Shared):
            self._own.settle(reservation, tokens, output_tokens)
            return
        used = reservation.end(tokens, output_tokens)
        if used is None:
            return
        limits = [limit for limit in reservation.limits if limit.type is not LimitType.REQUEST]
        if not limits or self._connection is None:  # what was reserved then counts until it has left the window
            return
        keys = [key_of(self.prefix, reservation.root_group, reservation.slug, limit) for limit in limits]
        words: list[int] = []
        for limit in limits:
            place = amounts.PLACE[limit.type]
            words += (rolling.WIDTH_US[limit.unit], reservation.admitted_us, reservation.reserved[place], used[place])
        self._connection.send(
            "EVALSHA", scripts.SETTLE.sha1, len(keys), *keys, self._now(), *words, answered=self._settled
        )

    def release(self, reservation: Reservation) -> None:
        """Give the tokens back, never the place in a REQUEST window: the upstream did not answer with 2xx."""
        self.settle(reservation, 0)

    def forget_idle(self) -> None:
        """Drop some of this proxy's own counters that count nothing; Redis' end by themselves."""
        self._own.forget_idle()

    async def keep(self) -> None:
        """Hold a connection for as long as the process runs, and make it anew when it is lost."""
        said = ""
        while True:
            try:
                connection = await _connect(self._place)
            except RedisError as error:
                if said != error.kind:  # once an outage
                    log.warning("rate windows are this proxy's own until Redis answers: %s", error)
                    said = error.kind
                loops.turned(rest_s=PAUSE_S)
                await asyncio.sleep(PAUSE_S)
                continue
            log.info("rate windows are shared over Redis")
            said = ""
            self._failed_in_row = 0
            self._connection = connection
            self.connected.set()
            try:
                await self._until_lost(connection)
            finally:
                self._give_up(connection)
            log.warning("rate windows are this proxy's own: Redis is away")
            loops.turned(rest_s=PAUSE_S)
            await asyncio.sleep(PAUSE_S)

    async def _until_lost(self, connection: RedisConnection) -> None:
        while not connection.lost.is_set():
            loops.turned(self._reserved, rest_s=_HEARD_EVERY_S)
            self._reserved = 0
            try:
                async with asyncio.timeout(_HEARD_EVERY_S):
                    await connection.lost.wait()
            except TimeoutError:
                continue

    def _now(self) -> str:
        return "" if self._clock_s is None else str(round(self._clock_s() * 1_000_000))

    def run(
        self,
        script: scripts.Script,
        keys: Sequence[str],
        words: Sequence[str | int],
        answered: Callable[[Any], None] | None = None,
    ) -> bool:
        """Ask Redis to run a script, its time before `words`; say whether Redis is asked now.

        `answered` hears of the reply, or of the RedisError that was counted as a failure.
        """
        if self._connection is None:
            return False

        def heard(reply: Any) -> None:
            self._settled(reply)
            if answered is not None:
                answered(reply)

        self._connection.send("EVALSHA", script.sha1, len(keys), *keys, self._now(), *words, answered=heard)
        return True

    def _settled(self, reply: object) -> None:
        if isinstance(reply, RedisError):
            self._failed(reply)
        else:
            self._failed_in_row = 0

    def _failed(self, error: RedisError) -> RedisError:
        """Count a failure; after too many in a row, or where another server is to be asked, give the connection up."""
        self.fallbacks[error.kind if error.kind in _KINDS else "other"] += 1
        self._failed_in_row += 1
        connection = self._connection
        if connection is None:
            return error
        if error.kind in _GIVEN_UP_AT_ONCE or self._failed_in_row >= _FAILURES:
            log.warning("Redis does not help: %s", error)
            self._give_up(connection)
        return error

    def _give_up(self, connection: RedisConnection) -> None:
        self._connection = None
        self.connected.clear()
        connection.drop()


async def _connect(where: RedisAddress) -> RedisConnection:
    connection = await redis.connect(where, ANSWERS_WITHIN_S)
    try:
        for script in (scripts.RESERVE, scripts.SETTLE, scripts.TAKE, scripts.HOLD, scripts.LEAVE):
            await connection.ask("SCRIPT", "LOAD", script.text)
    except RedisError:
        connection.drop()
        raise
    return connection


def register_metrics(telemetry: Telemetry, used: SharedWindows | MemoryWindows) -> None:
    """Show whether the windows are shared, and what was admitted or refused without Redis, and why."""
    shared = used if isinstance(used, SharedWindows) else None
    telemetry.gauge(
        "tollgate_rate_windows_shared",
        "1 while rate windows are shared over Redis, 0 while this proxy goes by its own.",
        lambda: shared is not None and shared.connected.is_set(),
    )
    telemetry.counter(
        "tollgate_rate_windows_fallbacks_total",
        "Times that Redis did not help, by why; a request then goes by this proxy's own rate windows.",
        lambda: {kind: shared.fallbacks[kind] if shared is not None else 0 for kind in sorted({*_KINDS, "other"})},
        "kind",
    )


def place(settings: Settings) -> RedisAddress | None:
    """Return where the settings say that Redis is; None where they name none."""
    if settings.redis_url is None:
        return None
    return redis.place(settings.redis_url.get_secret_value(), settings.redis_tls_ca_file)


async def problem(where: RedisAddress, prefix: str) -> str | None:
    """Ask a server for what the windows need of it; return what is wrong, and what to do, or None."""
    try:
        connection = await _connect(where)
    except RedisError as error:
        return f"{where.host}:{where.port} does not serve: {error}; until it does each proxy keeps its own rate windows"
    try:
        key = f"{prefix}{{doctor}}"
        words = (LimitType.REQUEST.value, 1_000_000, 1, 0)
        await connection.ask("EVALSHA", scripts.RESERVE.sha1, 2, key, f"{key}:log", "", *words)
        policy = _policy(await connection.ask("INFO", "memory"))
    except RedisError as error:
        return f"its user may not do what rate windows need ({_NEEDED}): {error}"
    finally:
        connection.drop()
    if policy in _MAY_EVICT:
        return f"its maxmemory-policy is {policy}, so windows in use may vanish: make it volatile-ttl, or noeviction"
    return None


def _policy(info: bytes) -> str:
    found = re.search(rb"^maxmemory_policy:(\S+)", info, re.MULTILINE)
    return found[1].decode() if found else ""


def _read(chain: RateChain, estimate: tuple[int, int], reply: Sequence[int]) -> Reservation | Refusal:
    """Return what the script decided; `estimate` is all reserved tokens, and those of them for the answer."""
    admitted, given_us, now_us = reply[:3]
    seen = [_Seen(*reply[at : at + 3]) for at in range(3, len(reply), 3)]
    if not admitted:
        return windows.refuse(chain.limits, seen, given_us)
    counted = [
        (each.counted(limit.threshold), each.empty_us(limit.threshold))
        for limit, each in zip(chain.limits, seen, strict=True)
    ]
    reserved = amounts.each(1, *estimate)
    return _Shared(chain.slug, chain.limits, reserved, now_us, counted, given_us, root_group=chain.root_group)


def key_of(prefix: str, root_group: str, slug: str, limit: WindowLimit) -> str:
    """Return what a limit's counter is called; all of a tree's lie together."""
    what = f"{limit.type.value}:{limit.unit.value}:{limit.counted_slug(slug)}"
    return f"{prefix}{{{root_group}}}:{limit.counting_group}:{what}"


def _reserve_words(prefix: str, chain: RateChain, tokens: int, output_tokens: int) -> tuple[list[str], list[str | int]]:
    keys: list[str] = []
    words: list[str | int] = []
    for limit in chain.limits:
        key = key_of(prefix, chain.root_group, chain.slug, limit)
        keys += (key, f"{key}:log")
        amount = amounts.counted(limit.type, 1, tokens, output_tokens)
        words += (limit.type.value, rolling.WIDTH_US[limit.unit], limit.threshold, amount)
    return keys, words
