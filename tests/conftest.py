"""What holds for every test: no sockets in unit and property tests, and no error of the background swallowed.

Threads and finalizers need nothing here: pytest turns their errors into warnings, and warnings are errors.
"""

import gc
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_socket

pytest_plugins = ("tests.support.services", "tests.support.databases", "tests.support.engines", "tests.support.secured")
SOCKETLESS = {"unit", "property"}
_MEMORY = Path("/dev/shm")
_MEMORY_NEEDED = 2 * 1024**3
_TAKES_S = {"kafka_broker": 15, "kafka": 3, "postgres": 0.3, "place": 0.1}
"""About how long a test takes by what it asks for; those of the mark `slow` take 10 s, the rest next to nothing."""

# New examples in each run, also where CI is set; what failed is printed as a decorator that repeats it. How long an
# example takes says nothing on a busy machine.
hypothesis.settings.register_profile(
    "tollgate",
    derandomize=False,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tollgate")


def pytest_configure() -> None:
    """Have the tests' folders in memory, where there is room: many tests wait for the disk at each commit.

    And have what is compiled kept, also where the environment says not to, and Kafka compiled lightly: hundreds of
    processes are started, and few live long.
    """
    gc.disable()  # until the tests are collected: what is made till then stays
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")  # half the CPU of a broker's first ten seconds
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _MEMORY_NEEDED:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: a worker that gets one last would keep the others waiting."""
    files: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        asked = [_TAKES_S[name] for name in getattr(item, "fixturenames", ()) if name in _TAKES_S]
        files[item.path] += max(asked, default=0) + (10 if item.get_closest_marker("slow") else 0)
    items.sort(key=lambda item: -files[item.path])


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what the imports made out of the collector's sight, so that a collection after each test costs little."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _sockets_off(request: pytest.FixtureRequest) -> Iterator[None]:
    folders = request.path.relative_to(request.config.rootpath).parts
    if SOCKETLESS.isdisjoint(folders):
        yield
        return
    pytest_socket.disable_socket(allow_unix_socket=True)  # an event loop wakes itself over a socket pair
    yield
    pytest_socket.enable_socket()


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(logging.Formatter().format(record))


@pytest.fixture(autouse=True)
def _no_swallowed_error() -> Iterator[None]:
    """Fail where asyncio reports an exception that nobody awaited; every loop says so to this one logger."""
    collector = _Collector()
    logger = logging.getLogger("asyncio")
    logger.addHandler(collector)
    yield
    gc.collect()  # a task is reported when it is collected
    gc.freeze()  # what is alive belongs to a module or the session: the next collection need not look at it again
    logger.removeHandler(collector)
    if collector.messages:
        pytest.fail("an error in the background was swallowed:\n" + "\n".join(collector.messages), pytrace=False)
