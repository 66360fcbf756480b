from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.spool import writer
from proxy.spool.writer import Spool
from runtime.settings import SpoolSync
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import Topic
from tests.integration.proxy.gate import Gate, gate
from tests.integration.proxy.tcp import TcpUpstream


@pytest.fixture
async def upstream() -> AsyncIterator[TcpUpstream]:
    async with TcpUpstream() as server:
        yield server


@pytest.fixture
async def open_gate(tmp_path: Path, upstream: TcpUpstream) -> AsyncIterator[Callable[..., Any]]:
    """Open a gate in front of `upstream`, with settings of the test's choice."""
    async with AsyncExitStack() as stack:

        async def open_gate(**settings: Any) -> Gate:
            return await stack.enter_async_context(gate(tmp_path, upstream.base_url, **settings))

        yield open_gate


@pytest.fixture
async def running(open_gate: Callable[..., Any]) -> Gate:
    opened: Gate = await open_gate()
    return opened


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Spool]:
    made, older = topics.opened(tmp_path)
    assert not older
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the spool look after itself sooner."""
    monkeypatch.setattr(writer, "_TIDY_EVERY_S", 0.01)


@pytest.fixture(params=SpoolSync)
def sync(request: pytest.FixtureRequest) -> SpoolSync:
    return SpoolSync(request.param)


@pytest.fixture
def opened(tmp_path: Path, sync: SpoolSync) -> Iterator[Spool]:
    made, older = writer.open_folder(tmp_path, sync=sync, max_bytes=2**30)
    assert not older
    yield made
    made.close()
