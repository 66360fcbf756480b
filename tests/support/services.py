"""Finds Kafka, PostgreSQL and Redis for the tests: as the environment names them, in Docker, or started here.

A run that needs no service starts none.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from infra.local import install
from infra.local import kafka as local_kafka
from infra.local import postgres as local_postgres
from infra.local import redis as local_redis
from infra.local.process import LocalError
from runtime.kafka.writer import Kafka
from tests.support import containers

BOOTSTRAP = "TOLLGATE_TEST_KAFKA_BOOTSTRAP"
DATABASE_URL = "TOLLGATE_TEST_DATABASE_URL"
REDIS_URL = "TOLLGATE_TEST_REDIS_URL"
INSTALL = "TOLLGATE_TEST_INSTALL"
"""Where `./run test` says that missing packages may be installed."""
_READY_S = 60

Way = Callable[[ExitStack], str]
"""Starts a service that ends when the stack closes; returns its address. Raise LocalError where it cannot."""


class Finder(NamedTuple):
    """How one service is found."""

    variable: str
    """Names it in the environment."""
    what: str
    """What people call it."""
    ways: Sequence[Way]
    """To start it, best first."""
    answers: Callable[[str], bool]
    """Whether it is up."""


def find(
    what: str,
    given: str | None,
    ways: Sequence[Way],
    answers: Callable[[str], bool],
    stack: ExitStack,
    *,
    within_s: float = _READY_S,
) -> str:
    """Return the address of a service: the given one, else that of the first way that works. Raise LocalError.

    A given address that does not answer is an error: whoever named it wants no other.
    """
    if given:
        if not _within(answers, given, within_s):
            raise LocalError(f"{what} does not answer at {given}, which the environment names")
        return given
    reasons = []
    for way in ways:
        try:
            address = way(stack)
        except LocalError as error:
            reasons.append(str(error))
            continue
        if _within(answers, address, within_s):
            return address
        reasons.append(f"{what} was started at {address} and did not answer within {within_s} s")
    raise LocalError(f"there is no {what} for this test: " + "; ".join(reasons))


def _within(answers: Callable[[str], bool], address: str, bound_s: float) -> bool:
    deadline = time.monotonic() + bound_s
    while not answers(address):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)  # another process says nothing when it is ready; the loop is bounded
    return True


class Services:
    """The services of one test run, each found once, when it is first asked for."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.stack = ExitStack()
        self._environment = environment
        self._found: dict[str, str | LocalError] = {}

    def address(self, name: str) -> str:
        """Return where `name` (kafka, postgres or redis) is. Raise LocalError, each time the same."""
        if name not in self._found:
            finder = FINDERS[name]
            given = self._environment.get(finder.variable)
            try:
                self._found[name] = find(finder.what, given, finder.ways, finder.answers, self.stack)
            except LocalError as error:
                self._found[name] = error
        found = self._found[name]
        if isinstance(found, LocalError):
            raise found
        return found


def _locally(name: str, start: Callable[[Path, ExitStack], str]) -> Way:
    def way(stack: ExitStack) -> str:
        installed(name)
        return start(stack.enter_context(folder(name)), stack)

    return way


def installed(name: str) -> None:
    """See to it that a service can be started here, by an installation where `./run test` asks. Raise LocalError."""
    install.ensure(name, install=bool(os.environ.get(INSTALL)))


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """Make a folder for a service: where we are root, PostgreSQL runs as another user, and must come through."""
    with tempfile.TemporaryDirectory(prefix=f"tollgate-{name}-") as made:
        Path(made).chmod(0o711)
        yield Path(made)


def _start_kafka(folder: Path, stack: ExitStack) -> str:
    return stack.enter_context(local_kafka.running(folder)).bootstrap


def _start_postgres(folder: Path, stack: ExitStack) -> str:
    return stack.enter_context(local_postgres.running(folder, durable=False)).url


def _start_redis(folder: Path, stack: ExitStack) -> str:
    return stack.enter_context(local_redis.running(folder)).url


def _kafka_answers(bootstrap: str) -> bool:
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    return local_kafka.brokers(int(port), host) > 0


def _redis_answers(url: str) -> bool:
    place = urlsplit(url)
    return local_redis.answers(place.port or 6379, place.hostname or "localhost")


FINDERS = {
    "kafka": Finder(BOOTSTRAP, "Kafka", (containers.start_kafka, _locally("kafka", _start_kafka)), _kafka_answers),
    "postgres": Finder(
        DATABASE_URL,
        "PostgreSQL",
        (containers.start_postgres, _locally("postgres", _start_postgres)),
        local_postgres.answers,
    ),
    "redis": Finder(REDIS_URL, "Redis", (containers.start_redis, _locally("redis", _start_redis)), _redis_answers),
}

SERVICES = pytest.StashKey[Services]()
PREFIX = f"t{secrets.token_hex(4)}-"
"""What every topic, group and database of this run begins with: several runs share one service."""
_FIXTURES = {"kafka_bootstrap": "kafka", "postgres_server": "postgres", "redis_url": "redis"}
"""The fixtures that are a running service; `kafka_installed` and so on stand for its programs alone."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the run's services, none of them started, and see to their end."""
    services = Services(os.environ)
    config.stash[SERVICES] = services
    config.add_cleanup(services.stack.close)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start what the chosen tests need before the first of them: an installation takes longer than a test may."""
    if session.config.option.collectonly:
        return
    used = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
    capture: Any = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # an installation says so at once
        for name in install.CHECKS:
            with suppress(LocalError):  # each test that needs it will say so
                if f"{name}_installed" in used:
                    installed(name)
        for fixture, name in _FIXTURES.items():
            with suppress(LocalError):
                if fixture in used:
                    session.config.stash[SERVICES].address(name)


def _address(request: pytest.FixtureRequest, name: str) -> str:
    try:
        return request.config.stash[SERVICES].address(name)
    except LocalError as error:
        pytest.fail(str(error), pytrace=False)


def _installed(name: str) -> None:
    try:
        installed(name)
    except LocalError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def kafka_installed() -> None:
    """Kafka's programs are here, for a test that starts its own."""
    _installed("kafka")


@pytest.fixture(scope="session")
def postgres_installed() -> None:
    """PostgreSQL's programs are here, for a test that starts its own."""
    _installed("postgres")


@pytest.fixture(scope="session")
def redis_installed() -> None:
    """Redis' programs are here, for a test that starts its own."""
    _installed("redis")


@pytest.fixture(scope="session")
def pgbouncer_installed() -> None:
    """PgBouncer's program is here, for a test that starts its own."""
    _installed("pgbouncer")


@pytest.fixture(scope="session")
def front_proxies_installed() -> None:
    """The programs of nginx and Caddy are here, for a test that starts its own."""
    _installed("nginx")
    _installed("caddy")


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest) -> str:
    """A real Kafka's host:port."""
    return _address(request, "kafka")


@pytest.fixture(scope="module")
def _topics_swept(kafka_bootstrap: str) -> Iterator[None]:
    yield
    asyncio.run(_delete_topics(kafka_bootstrap))  # one broker carries few thousand partitions


@pytest.fixture
def kafka(kafka_bootstrap: str, _topics_swept: None) -> Kafka:
    """A real Kafka with a prefix of this test's own, and so without topics; they go after the module's last test."""
    return Kafka(kafka_bootstrap, f"{PREFIX}{secrets.token_hex(4)}.")


@pytest.fixture(scope="session")
def _kafka_formatted(kafka_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broker's data as they are before its first start."""
    broker = local_kafka.at(tmp_path_factory.mktemp("formatted"))
    broker.configure()
    return broker.data


@pytest.fixture
def kafka_broker(_kafka_formatted: Path, tmp_path: Path) -> Iterator[local_kafka.Broker]:
    """A running broker of this test's own, to pause, kill and start again."""
    shutil.copytree(_kafka_formatted, tmp_path / "kafka" / _kafka_formatted.name)
    with local_kafka.running(tmp_path / "kafka") as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> str:
    """A real PostgreSQL's URL, as a user who may create databases."""
    return _address(request, "postgres")


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """A real Redis; each test uses keys of its own."""
    return _address(request, "redis")


async def _delete_topics(bootstrap: str) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        ours = [topic for topic in await client.list_topics() if topic.startswith(PREFIX)]
        if ours:
            await client.delete_topics(ours, timeout_ms=30_000)
    finally:
        await client.close()
