"""Whatever becomes of Redis, a request is decided at once: by the shared windows, or by this proxy's own."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from infra.local import certificates, process
from infra.local import redis as local_redis
from infra.local.redis import Server
from proxy.limits.windows import RateChain, Refusal, Reservation, WindowLimit
from proxy.windows import redis
from proxy.windows.redis import SharedWindows
from runtime.redis import RedisAddress, RedisError, connect, place
from schemas.limits import LimitType, RateLimitUnit
from tests.integration.runtime.http.wire import until
from tests.support import services

HOUR = 1_000_000


def chain(threshold: int, unit: RateLimitUnit = RateLimitUnit.MINUTE) -> RateChain:
    return RateChain("root", "lab/model", (WindowLimit(LimitType.REQUEST, unit, threshold, "root", "root"),))


def tokens(threshold: int) -> RateChain:
    limit = WindowLimit(LimitType.TOKEN, RateLimitUnit.MINUTE, threshold, "root", "root")
    return RateChain("root", "lab/model", (limit,))


@asynccontextmanager
async def proxy(where: RedisAddress, prefix: str, *, answers: bool = True) -> AsyncIterator[SharedWindows]:
    windows = SharedWindows(where, prefix)
    kept = asyncio.create_task(windows.keep())
    if answers:
        await windows.connected.wait()
    yield windows
    kept.cancel()
    with suppress(asyncio.CancelledError):
        await kept


async def admitted(windows: SharedWindows, wanted: RateChain, times: int) -> int:
    taken = await asyncio.gather(*(windows.reserve(wanted, 1) for _ in range(times)))
    return sum(isinstance(each, Reservation) for each in taken)


def fallbacks(windows: SharedWindows) -> dict[str, int]:
    return dict(+windows.fallbacks)


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4()}:"


@pytest.fixture
def server(redis_installed: None) -> Iterator[Server]:
    with services.folder("redis") as folder, local_redis.running(folder) as running:
        yield running


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "ANSWERS_WITHIN_S", 10)  # a busy machine's Redis is no outage


@pytest.mark.usefixtures("_patient")
async def test_two_proxies_hold_one_limit_between_them(redis_url: str, prefix: str) -> None:
    async with proxy(place(redis_url), prefix) as one, proxy(place(redis_url), prefix) as other:
        got = await asyncio.gather(admitted(one, chain(100), 150), admitted(other, chain(100), 150))
        assert sum(got) == 100


@pytest.mark.usefixtures("_patient")
async def test_what_one_proxy_settles_the_other_can_use(redis_url: str, prefix: str) -> None:
    async with proxy(place(redis_url), prefix) as one, proxy(place(redis_url), prefix) as other:
        taken = await one.reserve(tokens(10), 10)
        assert isinstance(taken, Reservation)
        assert isinstance(await other.reserve(tokens(10), 1), Refusal)
        one.release(taken)
        await one.reserve(chain(9), 0)  # answers come in the order of the questions
        assert isinstance(await other.reserve(tokens(10), 1), Reservation)


async def test_it_is_stopped_and_started_under_load(server: Server, prefix: str) -> None:
    async with proxy(place(server.url), prefix) as windows:
        assert await admitted(windows, chain(5), 5) == 5
        server.process.kill()
        await until(lambda: not windows.connected.is_set())
        assert await admitted(windows, chain(5), 20) == 5, "its own windows hold the limit alone"
        server.start()
        await until(windows.connected.is_set)
        assert await admitted(windows, chain(5), 20) == 5, "the server is empty after its restart"
        assert await admitted(windows, chain(5), 20) == 0
    assert fallbacks(windows) == {"connection": 20}


async def test_one_that_hangs_costs_25_ms_thrice_and_then_nothing(server: Server, prefix: str) -> None:
    async with proxy(place(server.url), prefix) as windows:
        server.process.pause()
        for _ in range(redis._FAILURES):
            assert isinstance(await windows.reserve(chain(HOUR), 1), Reservation)
        assert not windows.connected.is_set()
        assert isinstance(await windows.reserve(chain(HOUR), 1), Reservation)
        server.process.resume()
        await until(windows.connected.is_set)
    assert fallbacks(windows) == {"timeout": redis._FAILURES, "connection": 1}


async def test_tokens_that_were_granted_too_late_are_given_back(server: Server, prefix: str) -> None:
    async with proxy(place(server.url), prefix) as windows:
        server.process.pause()
        late = await windows.reserve(tokens(10), 10)
        server.process.resume()
        assert type(late) is Reservation
        await until(lambda: windows._connection is not None and not windows._connection._late)
        await windows.reserve(chain(9), 0)  # the release has been answered before it
        assert isinstance(await windows.reserve(tokens(10), 10), Reservation)


@pytest.mark.usefixtures("_patient")
async def test_whoever_does_not_wait_any_more_leaves_no_tokens_behind(redis_url: str, prefix: str) -> None:
    async with proxy(place(redis_url), prefix) as windows:
        gone = asyncio.ensure_future(windows.reserve(tokens(10), 10))
        await asyncio.sleep(0)
        gone.cancel()
        await windows.reserve(chain(9), 0)
        await windows.reserve(chain(9), 0)
        assert isinstance(await windows.reserve(tokens(10), 10), Reservation)


@pytest.mark.usefixtures("_patient")
async def test_forgotten_scripts_are_brought_again(server: Server, prefix: str) -> None:
    async with proxy(place(server.url), prefix) as windows:
        asked = await connect(place(server.url), 10)
        await asked.ask("SCRIPT", "FLUSH")
        assert isinstance(await windows.reserve(chain(1), 1), Reservation), "its own"
        await until(windows.connected.is_set)
        assert await admitted(windows, chain(1), 5) == 1
        asked.drop()
    assert fallbacks(windows) == {"noscript": 1}


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(("REPLICAOF", "127.0.0.1", "1"), "readonly"), (("CONFIG", "SET", "min-replicas-to-write", "1"), "noreplicas")],
)
async def test_a_server_that_refuses_writes_is_not_asked_for_long(
    server: Server, prefix: str, spoil: tuple[str, ...], kind: str
) -> None:
    async with proxy(place(server.url), prefix) as windows:
        asked = await connect(place(server.url), 10)
        await asked.ask(*spoil)
        for _ in range(redis._FAILURES):
            assert isinstance(await windows.reserve(chain(HOUR), 1), Reservation)
        assert not windows.connected.is_set()
        asked.drop()
    assert kind in fallbacks(windows)


async def test_a_user_without_its_password_is_told_so(server: Server, prefix: str) -> None:
    asked = await connect(place(server.url), 10)
    await asked.ask("CONFIG", "SET", "requirepass", "swordfish")
    assert "does not serve: NOAUTH" in str(await redis.problem(place(server.url), prefix))
    with_it = place(server.url.replace("redis://", "redis://:swordfish@"))
    assert await redis.problem(with_it, prefix) is None
    await asked.ask("ACL", "SETUSER", "lab", "on", ">pw", f"~{prefix}*", "+select", "+role", "+info", "+script|load")
    less = place(server.url.replace("redis://", "redis://lab:pw@"))
    assert "may not do what rate windows need" in str(await redis.problem(less, prefix))
    may = ("+evalsha", "+get", "+set", "+exists", "+del", "+time", "+lindex", "+lpop", "+llen", "+rpush", "+pexpire")
    await asked.ask("ACL", "SETUSER", "lab", *may)
    assert await redis.problem(less, prefix) is None
    await asked.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert "make it volatile-ttl" in str(await redis.problem(with_it, prefix))
    asked.drop()


@pytest.mark.usefixtures("_patient")
async def test_tls_checks_the_certificate_and_the_name(redis_installed: None, prefix: str) -> None:
    with services.folder("redis") as folder:
        made = certificates.make(folder, "localhost")
        (port,) = process.free_ports(1)
        tls = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(made.authority)]
        tls += ["--tls-cert-file", str(made.server), "--tls-key-file", str(made.server)]
        with local_redis.running(folder, more=tls):
            url = f"rediss://localhost:{port}/0"
            async with proxy(place(url, made.authority), prefix) as windows:
                assert await admitted(windows, chain(3), 9) == 3
            for bad in (place(url), place(url.replace("localhost", "127.0.0.1"), made.authority)):
                with pytest.raises(RedisError, match="certificate verify failed"):
                    await connect(bad, 1)
