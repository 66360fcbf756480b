"""How much of an answer the sender reads, and how long it waits for it (contract 5)."""

import asyncio
from pathlib import Path
from typing import Any

import httpcore
import pytest

from tests.integration.webhooks.test_sender import Peer, Resolver, certificate, prepared, send_to, sending
from webhooks.sender import MAX_ANSWER_BYTES


class Counted(httpcore.AsyncNetworkStream):
    """A connection that counts what is read of it."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, reads: list[int]) -> None:
        self._stream = stream
        self._reads = reads
        self.write, self.aclose, self.get_extra_info = stream.write, stream.aclose, stream.get_extra_info  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = await self._stream.read(max_bytes, timeout)
        self._reads.append(len(data))
        return data

    async def start_tls(self, *arguments: Any, **named: Any) -> httpcore.AsyncNetworkStream:
        return Counted(await self._stream.start_tls(*arguments, **named), self._reads)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read of a connection gave."""
    counts: list[int] = []
    connect = httpcore.AnyIOBackend.connect_tcp

    async def counted(*arguments: Any, **named: Any) -> httpcore.AsyncNetworkStream:
        return Counted(await connect(*arguments, **named), counts)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", counted)
    return counts


LARGE = b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n" + b"x" * 5_000_000


async def test_no_more_of_an_answer_is_read_than_the_bound(reads: list[int]) -> None:
    assert (await send_to(LARGE)).status_code == 200
    assert sum(reads) == MAX_ANSWER_BYTES == 16 * 1024


async def test_nor_of_one_that_is_encrypted(reads: list[int], tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "lab.example")
    async with Peer(LARGE).running(server) as peer, sending(Resolver(["127.0.0.1"]), context=client) as sender:
        assert (await sender.send(prepared(f"https://lab.example:{peer.port}/"))).status_code == 200
    assert sum(reads) == MAX_ANSWER_BYTES


async def test_what_was_read_of_an_answer_is_kept_as_text() -> None:
    answered = [
        ("no room: Zoë".encode(), "no room: Zoë"),
        (b"\0 \xff", "\ufffd \ufffd"),  # what a database would not take
        (b"", ""),
    ]
    for body, text in answered:
        outcome = await send_to(b"HTTP/1.1 500 No\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        assert (outcome.status_code, outcome.answer) == (500, text)
    long = (await send_to(LARGE)).answer
    assert long is not None
    assert set(long) == {"x"}
    assert len(long) <= MAX_ANSWER_BYTES


async def test_each_answer_on_a_connection_has_the_bound_to_itself(reads: list[int]) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 12000\r\n\r\n" + b"x" * 12_000
    async with Peer(answer).running() as peer, sending() as sender:
        for _ in range(3):
            assert (await sender.send(prepared(f"http://127.0.0.1:{peer.port}/"))).status_code == 200
        assert peer.connections == 1
    assert sum(reads) == 3 * len(answer)


async def test_a_head_beyond_the_bound_is_a_failure() -> None:
    outcome = await send_to(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 3000 + b"content-length: 0\r\n\r\n")
    assert outcome.error == "ReadError: the answer is longer than 16384 bytes"
    assert (outcome.status_code, outcome.final) == (None, False)


async def test_an_answer_that_does_not_come_to_its_end_is_not_waited_for_as_long_as_an_attempt_may_take() -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    async with asyncio.timeout(60):
        assert (await send_to(half, stalls=True, timeout_s=3600)).status_code == 200
