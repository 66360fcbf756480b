"""Every URL and every resolver's answer of the table, at the two places that connect: none of them does."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import httpcore
import pytest

from proxy.core.calls import Failure, UpstreamRequest
from proxy.upstream import origins
from proxy.upstream.pool import HttpAnswer, Upstreams
from runtime.lookups import Lookups
from tests.unit.runtime.test_ssrf_guard import NOT_PUBLIC, REFUSED_URLS
from webhooks.core.deliveries import Prepared
from webhooks.sender import HttpSender

PUBLIC = "192.0.3.1"
"""Public by every rule; nobody is called there, since connections are only noted."""

SPLIT = [
    "http://127.0.0.1\\@lab.example/",
    "https://10.0.0.1\\.lab.example/",
    "https://127.0.0.1\t@lab.example/",
    "https://user@lab.example/",
    "https://lab.example\\@10.0.0.1/",
    "https://169.254.169.254#@lab.example/",
    "https://169.254.169.254?@lab.example/",
]
"""Two readers of these may see two hosts."""


class Names:
    """A resolver that answers as it is told, one answer after the other, the last again and again."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses that somebody would have connected to; nobody gets through."""
    found: list[str] = []

    async def connect_tcp(_: object, host: str, *__: Any, **___: Any) -> NoReturn:
        found.append(host)
        raise httpcore.ConnectError("noted")

    async def create_connection(_: object, __: object, address: str, *___: Any, **____: Any) -> NoReturn:
        found.append(address)
        raise OSError("noted")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
    yield found


async def deliver(url: str, names: Names, *, times: int = 1) -> list[str | None]:
    """Make attempts at a receiver; return their errors."""
    sender = HttpSender(allow_private=False, resolver=names)
    try:
        return [(await sender.send(Prepared(url, {}, b"{}", 2.0))).error for _ in range(times)]
    finally:
        await sender.aclose()


async def call(url: str, names: Names, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call an upstream; return what came of it."""
    (outcome,) = await call_later(url, names, monkeypatch, 0)
    return outcome


async def call_later(url: str, names: Names, monkeypatch: pytest.MonkeyPatch, *at: float) -> list[Any]:
    """Call an upstream at each of these times, in seconds; return what came of it."""
    monkeypatch.setattr(Lookups, "of", lambda _, __: names)
    times = list(at)
    adapter = Upstreams(allow_private=False, connect_timeout_s=2, read_timeout_s=2, monotonic=lambda: times[0])
    outcomes = []
    try:
        while times:
            outcomes.append(await adapter.open(UpstreamRequest(url, b"{}", "request-1", None)))
            times.pop(0)
        times.append(at[-1])
        return outcomes
    finally:
        await adapter.close()


def test_the_table_is_long_enough() -> None:
    assert len(set(REFUSED_URLS)) >= 60
    assert len(set(NOT_PUBLIC)) >= 60


@pytest.mark.parametrize("url", [*REFUSED_URLS, *SPLIT])
async def test_no_such_url_is_connected_to(url: str, connected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (error,) = await deliver(url, Names(["127.0.0.1"]))
    assert (error or "").startswith("refused: ")
    assert await call(url, Names(["127.0.0.1"]), monkeypatch) is Failure.REFUSED_ADDRESS
    assert connected == []


@pytest.mark.parametrize("url", SPLIT[:5])
async def test_a_url_that_two_readers_read_differently_is_refused_for_its_form_alone(
    url: str, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (error,) = await deliver(url, Names([PUBLIC]))
    assert (error or "").startswith("refused: ")
    assert await call(url, Names([PUBLIC]), monkeypatch) is Failure.REFUSED_ADDRESS
    assert connected == []


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_no_such_answer_of_a_resolver_is_connected_to(
    address: str, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in ([address], [PUBLIC, address], [address, PUBLIC]):
        (error,) = await deliver("https://lab.example/", Names(answer))
        assert (error or "").startswith("refused: lab.example: ")
        assert await call("https://lab.example/v1", Names(answer), monkeypatch) is Failure.REFUSED_ADDRESS
    assert connected == []


async def test_a_name_that_is_bound_anew_between_check_and_connect_changes_nothing(
    connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked is what is connected to; the next connection is checked anew."""
    rebinding = Names([PUBLIC], ["127.0.0.1"])
    first, second = await deliver("https://lab.example/", rebinding, times=2)
    assert (first, connected) == ("ConnectError: noted", [PUBLIC])
    assert second == "refused: lab.example: has an address that is not public"
    connected.clear()
    rebinding = Names([PUBLIC], ["127.0.0.1"])
    outcomes = await call_later("https://lab.example/v1", rebinding, monkeypatch, 0, origins.STALE_S)
    assert outcomes == [Failure.UNREACHABLE, Failure.REFUSED_ADDRESS]
    assert connected == [PUBLIC, PUBLIC], "it is tried twice, at the address that was checked"


async def test_an_upstreams_client_knows_its_checked_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, with the real server at the checked address; the system would find another for the name."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    names = Names(["127.0.0.1"], ["127.0.0.9"])
    monkeypatch.setattr(Lookups, "of", lambda _, __: names)
    adapter = Upstreams(allow_private=True, connect_timeout_s=2, read_timeout_s=2)
    for _ in range(2):
        opened = await adapter.open(UpstreamRequest(f"http://lab.example:{port}/v1", b"{}", "request-1", None))
        assert isinstance(opened, HttpAnswer)
        await opened.close()
    await adapter.close()
    server.close()
    assert [b"lab.example" in head for head in heads] == [True, True]
