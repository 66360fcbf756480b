"""What holds for every test: no sockets in unit and property tests, and no error of the background swallowed.

Threads and finalizers need nothing here: pytest turns their errors into warnings, and warnings are errors.
"""

import gc
import logging
from collections.abc import Iterator

import pytest
import pytest_socket

pytest_plugins = ("tests.services", "tests.engines")
SOCKETLESS = {"unit", "property"}


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what the imports made out of the collector's sight, so that a collection after each test costs little."""
    gc.collect()
    gc.freeze()


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
    logger.removeHandler(collector)
    if collector.messages:
        pytest.fail("an error in the background was swallowed:\n" + "\n".join(collector.messages), pytrace=False)
