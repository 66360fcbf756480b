"""Connections to upstreams: kept, found stale, not to be had, too slow, and their addresses (contract 3)."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from proxy.core.calls import Failure, UpstreamRequest
from proxy.upstream import origins
from proxy.upstream.pool import HttpAnswer, Upstreams
from runtime import ssrf_guard
from runtime.lookups import Lookups
from schemas.usage import Outcome
from tests.integration.proxy.gate import ASKED, PATH, Gate
from tests.integration.proxy.tcp import Line, Received, TcpUpstream, answer_plain, piece, stream_hello


async def test_connections_are_kept_for_plain_answers_and_streams(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        for number in range(6):
            upstream.play = stream_hello if number % 2 else answer_plain
            answer = await client.post(PATH, json=ASKED | {"stream": bool(number % 2)})
            assert answer.status_code == 200
    assert upstream.connections == 1


async def test_a_connection_that_went_stale_is_not_used(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        for number in range(5):
            assert (await client.post(PATH, json=ASKED)).status_code == 200
            line = upstream.lines[number]
            line.writer.close()
            await line.writer.wait_closed()
    assert upstream.connections == 5
    assert len(upstream.received) == 5


async def test_a_request_that_was_sent_is_not_sent_again(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 200

        async def play(_received: Received, line: Line) -> None:
            line.break_off()

        upstream.play = play
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert len(upstream.received) == 2
    assert len(running.events) == 1


async def test_nobody_listens(running: Gate) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running.serve(ASKED["model"], f"http://127.0.0.1:{port}/v1")
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert str(port) not in answer.text
    assert not running.events


@pytest.fixture
def full_port() -> Iterator[int]:
    """Listen on a port whose queue is full: connecting to it takes for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.settimeout(0)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for each in waiting:
            each.close()


async def test_a_connection_that_takes_too_long(open_gate: Callable[..., Any], full_port: int) -> None:
    running: Gate = await open_gate(upstream_connect_timeout_s=0.2)
    running.serve(ASKED["model"], f"http://127.0.0.1:{full_port}/v1")
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert not running.events


async def test_a_first_byte_that_takes_too_long(open_gate: Callable[..., Any], upstream: TcpUpstream) -> None:
    running: Gate = await open_gate(upstream_first_byte_timeout_s=0.2)

    async def play(_received: Received, line: Line) -> None:
        await line.hung_up.wait()

    upstream.play = play
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert len(upstream.received) == 1
    assert not running.events


async def test_the_bound_on_the_first_byte_is_none_on_the_pauses_after_it(
    open_gate: Callable[..., Any], upstream: TcpUpstream
) -> None:
    running: Gate = await open_gate(upstream_first_byte_timeout_s=0.3, upstream_idle_timeout_s=10)

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        await line.chunk(piece("hello"))
        await asyncio.sleep(0.6)  # longer than the first byte may take: the pause itself is what is tested
        await stream_rest(line)

    async def stream_rest(line: Line) -> None:
        await line.chunk(b"data: [DONE]\n\n")
        await line.end_stream()

    upstream.play = play
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED | {"stream": True})
    assert answer.content.endswith(b"[DONE]\n\n")
    assert (await running.event()).outcome is Outcome.COMPLETE


# --- addresses --------------------------------------------------------------------------------------------------------


class Names:
    """A resolver whose answer a test changes; it can be made to wait."""

    def __init__(self) -> None:
        self.found: list[str] = ["127.0.0.1"]
        self.asked = 0
        self.slow = "model.example"
        """The name whose answer waits for `answering`."""
        self.answering = asyncio.Event()
        self.answering.set()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        if host == self.slow:
            await self.answering.wait()
        if not self.found:
            raise OSError("no such name")
        return list(self.found)


class Hand:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(Lookups, "of", lambda _, __: names)
    return names


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
async def calls(names: Names, hand: Hand, upstream: TcpUpstream) -> AsyncIterator[Callable[..., Any]]:
    """Call an upstream by its name; return what came of it."""
    adapter = Upstreams(allow_private=True, connect_timeout_s=0.5, read_timeout_s=5, monotonic=hand)

    async def call(host: str = "model.example") -> int | Failure:
        url = f"http://{host}:{upstream.port}/v1/chat/completions"
        opened = await adapter.open(UpstreamRequest(url, b"{}", "request-1", None))
        if isinstance(opened, Failure):
            return opened
        assert isinstance(opened, HttpAnswer)
        while await opened.read_chunk() is not None:
            pass
        await opened.close()
        return opened.status

    yield call
    await adapter.close()


async def test_the_name_is_looked_up_once_a_minute_and_the_connection_kept(
    calls: Callable[..., Any], names: Names, hand: Hand, upstream: TcpUpstream
) -> None:
    for _ in range(3):
        assert await calls() == 200
    assert (names.asked, upstream.received[0].header("host")) == (1, f"model.example:{upstream.port}")
    names.found = ["127.0.0.9", "127.0.0.1"]  # in another order, with another one
    hand.now_s += origins.RECHECK_S
    names.answering.clear()
    assert await calls() == 200  # it does not wait for the check
    assert await calls() == 200
    names.answering.set()
    for _ in range(3):
        assert await calls() == 200
    assert names.asked == 2
    assert upstream.connections == 1


async def test_a_name_whose_address_is_gone_is_called_at_its_new_one(
    calls: Callable[..., Any], names: Names, hand: Hand, upstream: TcpUpstream
) -> None:
    names.found = ["127.0.0.9"]  # nobody listens there
    assert await calls() is Failure.UNREACHABLE
    names.found = ["127.0.0.1"]
    hand.now_s += origins.STALE_S
    assert await calls() == 200


async def test_the_next_address_is_tried_where_the_first_cannot_be_reached(
    calls: Callable[..., Any], names: Names, upstream: TcpUpstream
) -> None:
    names.found = ["127.0.0.9", "127.0.0.8", "127.0.0.1"]
    assert await calls() == 200
    assert await calls() == 200
    assert len(upstream.received) == 2
    assert names.asked == 1


async def test_a_dead_address_leaves_time_for_the_next(
    names: Names, upstream: TcpUpstream, full_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def create_connection(factory: Any, address: str, port: int, **options: Any) -> Any:
        return await connect(factory, "127.0.0.1", full_port if address == "127.0.0.9" else port, **options)

    monkeypatch.setattr(loop, "create_connection", create_connection)
    names.found = ["127.0.0.9", "127.0.0.1"]
    adapter = Upstreams(allow_private=True, connect_timeout_s=0.5, read_timeout_s=5)
    url = f"http://model.example:{upstream.port}/v1/chat/completions"
    opened = await adapter.open(UpstreamRequest(url, b"{}", "request-1", None))
    assert isinstance(opened, HttpAnswer)
    await opened.close()
    await adapter.close()


async def test_old_addresses_hold_while_a_name_cannot_be_looked_up_but_not_for_ever(
    calls: Callable[..., Any], names: Names, hand: Hand
) -> None:
    assert await calls() == 200
    names.found = []
    hand.now_s += origins.STALE_S - 1
    assert await calls() == 200
    await asyncio.sleep(0)
    hand.now_s += 1
    assert await calls() is Failure.UNREACHABLE
    names.found = ["127.0.0.1"]
    assert await calls() == 200


async def test_a_kept_connection_goes_with_its_address(
    calls: Callable[..., Any], names: Names, hand: Hand, upstream: TcpUpstream
) -> None:
    assert await calls() == 200
    names.found = ["127.0.0.9"]  # nobody listens there
    hand.now_s += origins.STALE_S
    assert await calls() is Failure.UNREACHABLE
    assert len(upstream.received) == 1


async def test_an_address_that_turns_private_is_not_called_any_more(
    names: Names, hand: Hand, upstream: TcpUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssrf_guard, "check_address", lambda address: None if address == "127.0.0.1" else "private")
    adapter = Upstreams(allow_private=False, connect_timeout_s=0.5, read_timeout_s=5, monotonic=hand)
    url = f"http://model.example:{upstream.port}/v1/chat/completions"
    asked = UpstreamRequest(url, b"{}", "request-1", None, by_operator=True)
    opened = await adapter.open(asked)
    assert isinstance(opened, HttpAnswer)
    await opened.close()
    names.found = ["127.0.0.1", "10.0.0.1"]
    hand.now_s += origins.STALE_S
    assert await adapter.open(asked) is Failure.REFUSED_ADDRESS
    assert len(upstream.received) == 1
    await adapter.close()


async def test_a_labs_url_is_judged_by_what_labs_may_now_and_the_operators_is_not(
    names: Names, upstream: TcpUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same place, named by both: each by its own rules, whoever came first."""
    monkeypatch.setattr(ssrf_guard, "check_address", lambda address: None)
    adapter = Upstreams(allow_private=False, connect_timeout_s=0.5, read_timeout_s=5)
    url = f"http://model.example:{upstream.port}/v1/chat/completions"
    for by_operator in (True, False, True):
        opened = await adapter.open(UpstreamRequest(url, b"{}", "request-1", None, by_operator=by_operator))
        if by_operator:
            assert isinstance(opened, HttpAnswer)
            await opened.close()
        else:
            assert opened is Failure.REFUSED_ADDRESS
    assert len(upstream.received) == 2
    await adapter.close()


async def test_one_name_that_takes_for_ever_holds_up_no_other_and_is_asked_for_once(
    calls: Callable[..., Any], names: Names
) -> None:
    names.slow = "slow.example"
    names.answering.clear()
    slow = [asyncio.create_task(calls("slow.example")) for _ in range(5)]
    async with asyncio.timeout(10):
        while not names.asked:  # noqa: ASYNC110 - a number is all there is to see
            await asyncio.sleep(0)
        assert await calls("quick.example") == 200
        assert not any(task.done() for task in slow)
        assert await asyncio.gather(*slow) == [Failure.CONNECT_TOO_SLOW] * 5
    assert names.asked == 1 + 1, "each waiting request asked for itself"


async def test_a_credential_is_a_bearer_token(upstream: TcpUpstream) -> None:
    adapter = Upstreams(allow_private=True, connect_timeout_s=0.5, read_timeout_s=5)
    asked = UpstreamRequest(f"{upstream.base_url}/chat/completions", b"{}", "request-1", "secret")
    opened = await adapter.open(asked)
    assert isinstance(opened, HttpAnswer)
    await opened.close()
    await adapter.close()
    assert upstream.received[0].header("authorization") == "Bearer secret"
