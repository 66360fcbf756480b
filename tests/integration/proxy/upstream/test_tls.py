"""Upstreams over TLS: the certificate's name is checked, the address is the one that was checked."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.core.calls import Failure
from proxy.upstream import tls
from proxy.upstream.pool import Upstreams
from runtime.lookups import Lookups
from tests.integration.proxy.tcp import Line, Received, TcpUpstream
from tests.integration.proxy.upstream.certificates import Authority
from tests.integration.proxy.upstream.kit import HEAD, Caller, hung_up, rest, until

HOST = "model.example"


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(Lookups, "of", lambda _, __: look_up)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def calling(
    authority: Authority, context: ssl.SSLContext, host: str = HOST
) -> AsyncIterator[tuple[TcpUpstream, Caller]]:
    """Run an upstream with this certificate, and a caller who trusts the authority."""
    trusted = ssl.create_default_context(cafile=authority.roots)
    async with TcpUpstream(tls=context) as server:
        upstreams = Upstreams(allow_private=True, connect_timeout_s=20, read_timeout_s=20, ssl_context=trusted)
        yield server, Caller(upstreams, f"https://{host}:{server.port}/v1/chat/completions")
        await upstreams.close()


@pytest.mark.parametrize("host", [HOST, "127.0.0.1", "model.example."])
async def test_a_certificate_that_fits(host: str, authority: Authority) -> None:
    asked: list[str | None] = []
    context = authority.server(host.rstrip("."))
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with calling(authority, context, host) as (server, caller):
        for _ in range(3):
            assert b"hello world" in await caller.whole()
        assert server.connections == 1
        assert server.received[0].header("host") == f"{host}:{server.port}"
    assert asked == [None if host == "127.0.0.1" else HOST]


async def test_a_certificate_of_another_name(authority: Authority) -> None:
    async with calling(authority, authority.server("other.example")) as (server, caller):
        assert await caller.open() is Failure.UNREACHABLE
        assert not server.received


async def test_a_certificate_that_has_run_out(authority: Authority) -> None:
    expired = authority.server(HOST, valid_until=datetime.now(UTC) - timedelta(minutes=1))
    async with calling(authority, expired) as (server, caller):
        assert await caller.open() is Failure.UNREACHABLE
        assert not server.received


async def test_a_certificate_of_nobody_we_trust(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "a stranger")
    async with calling(authority, stranger.server(HOST)) as (server, caller):
        assert await caller.open() is Failure.UNREACHABLE
        assert not server.received


async def test_what_speaks_no_tls(authority: Authority) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    async with calling(authority, authority.server(HOST)) as (_, caller):
        assert await caller.open(url=f"https://{HOST}:{port}/v1") is Failure.UNREACHABLE
    plain.close()


async def test_a_large_request_and_a_large_answer(authority: Authority) -> None:
    body = bytes(range(256)) * 4096

    async def play(received: Received, line: Line) -> None:
        await line.raw(HEAD + b"content-length: %d\r\n\r\n" % len(received.body))
        await line.raw(received.body)

    async with calling(authority, authority.server(HOST)) as (server, caller):
        server.play = play
        for _ in range(2):
            answer = await caller.answer(body)
            await until(lambda: caller.connections[0]._paused)
            assert b"".join(await rest(answer)) == body
            await answer.close()
        assert server.connections == 1


async def test_cancelling_ends_a_request_before_its_answer_begins(authority: Authority) -> None:
    async def say_nothing(_received: Received, line: Line) -> None:
        await line.hung_up.wait()

    async with calling(authority, authority.server(HOST)) as (server, caller):
        server.play = say_nothing
        asking = asyncio.create_task(caller.open())
        await until(lambda: server.received)
        asking.cancel()
        await asyncio.wait({asking})
        await hung_up(server)
        await until(lambda: not caller.connections)


def test_the_systems_roots_are_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.roots))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    trusted = tls.client_context()
    assert [root["subject"] for root in trusted.get_ca_certs()] == [((("commonName", "a test's authority"),),)]
    assert (trusted.check_hostname, trusted.verify_mode) == (True, ssl.CERT_REQUIRED)


@pytest.mark.parametrize("has_empty_folder", [False, True])
def test_certifis_roots_are_trusted_where_the_system_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, has_empty_folder: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path if has_empty_folder else tmp_path / "none"))
    assert len(tls.client_context().get_ca_certs()) > 50
