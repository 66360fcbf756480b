import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from proxy.upstream.pool import Upstreams
from tests.integration.proxy.tcp import TcpUpstream
from tests.integration.proxy.upstream.kit import Caller


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test on the loop that the product has, and on the standard library's, whose transports differ."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def server() -> AsyncIterator[TcpUpstream]:
    async with TcpUpstream() as server:
        yield server


@pytest.fixture
async def caller(server: TcpUpstream) -> AsyncIterator[Caller]:
    upstreams = Upstreams(allow_private=True, connect_timeout_s=5, read_timeout_s=20)
    yield Caller(upstreams, f"{server.base_url}/chat/completions")
    await upstreams.close()
