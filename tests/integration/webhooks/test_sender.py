"""The sender on real sockets: what it sends, what it makes of odd answers, and where it never connects (contract 5)."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runtime import version
from runtime.clock import Steady
from tests.unit.webhooks import kit
from webhooks.core.deliveries import Prepared
from webhooks.core.retry import AttemptResult
from webhooks.sender import HttpSender

BODY = b'{"a":1}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server that answers every request with the same bytes; closes after those that `closes` says so of."""

    def __init__(self, answer: bytes = OK, *, closes: bool = False, stalls: bool = False) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.names: list[str | None] = []
        self.port = 0
        self._open: set[asyncio.Task[None] | None] = set()
        self._answer = answer
        self._closes = closes
        self._stalls = stalls

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not self.requests or not self._closes:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head + await reader.readexactly(len(BODY)))
                writer.write(self._answer)
                await writer.drain()
                if self._stalls:
                    await reader.read()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator["Peer"]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            async with asyncio.timeout(5):
                await asyncio.gather(*(task for task in self._open if task is not None))


class Resolver:
    """Return one answer after the other, the last again and again."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.asynccontextmanager
async def sending(
    resolver: Resolver | None = None,
    *,
    allow_private: bool = True,
    context: ssl.SSLContext | None = None,
    steady: Steady = time.monotonic,
) -> AsyncIterator[HttpSender]:
    sender = HttpSender(allow_private=allow_private, resolver=resolver, ssl_context=context, steady=steady)
    try:
        yield sender
    finally:
        await sender.aclose()


def prepared(url: str, timeout_s: float = 5) -> Prepared:
    return Prepared(url, {"webhook-id": "id-1", "X-Baseten-Signature": "v1=00"}, BODY, timeout_s)


async def send_to(answer: bytes, *, closes: bool = False, stalls: bool = False, timeout_s: float = 5) -> AttemptResult:
    async with Peer(answer, closes=closes, stalls=stalls).running() as peer, sending() as sender:
        return await sender.send(prepared(f"http://127.0.0.1:{peer.port}/", timeout_s))


async def test_it_sends_the_body_with_its_headers_and_little_else() -> None:
    async with Peer().running() as peer, sending(Resolver(["127.0.0.1"])) as sender:
        outcome = await sender.send(prepared(f"http://lab.example:{peer.port}/hook?x=1"))
    assert (outcome.status_code, outcome.error, outcome.retry_after) == (200, None, None)
    head, _, body = peer.requests[0].decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == "POST /hook?x=1 HTTP/1.1"
    assert sorted(lines[1:]) == sorted(
        [
            f"Host: lab.example:{peer.port}",
            "Content-Type: application/json",
            f"User-Agent: tollgate-webhooks/{version.current()}",
            "webhook-id: id-1",
            "X-Baseten-Signature: v1=00",
            f"Content-Length: {len(BODY)}",
        ]
    )
    assert body.encode() == BODY


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await send_to(OK)).status_code == 200


@pytest.mark.parametrize(
    ("answer", "status", "retry_after"),
    [
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n", 429, "7"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 302, None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\nno", 500, None),
    ],
)
async def test_the_status_and_retry_after_are_told(answer: bytes, status: int, retry_after: str | None) -> None:
    outcome = await send_to(answer)
    assert (outcome.status_code, outcome.retry_after, outcome.error) == (status, retry_after, None)


async def test_a_status_counts_whatever_becomes_of_the_rest() -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    assert (await send_to(half, closes=True)).status_code == 200
    assert (await send_to(half, stalls=True, timeout_s=0.2)).status_code == 200


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
async def test_half_a_head_or_another_protocol_is_a_failure(answer: bytes) -> None:
    outcome = await send_to(answer, closes=True)
    assert outcome.status_code is None
    assert "RemoteProtocolError" in (outcome.error or "")
    assert not outcome.final


async def test_an_endless_head_is_a_failure() -> None:
    outcome = await send_to(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000)
    assert (outcome.status_code, outcome.final) == (None, False)


async def test_no_answer_is_a_timeout() -> None:
    outcome = await send_to(b"HTTP/1.1 200", stalls=True, timeout_s=0.2)
    assert outcome.error == "no answer within 0.2 s"


async def test_a_look_up_that_fails_is_tried_again() -> None:
    async def fail(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    sender = HttpSender(allow_private=True, resolver=fail)
    outcome = await sender.send(prepared("http://lab.example/"))
    await sender.aclose()
    assert (outcome.error, outcome.final) == ("name look-up failed: no such host", False)


async def test_a_dead_address_leaves_time_for_the_next() -> None:
    async with Peer().running() as peer, sending(Resolver(["127.0.0.2", "127.0.0.1"])) as sender:
        assert (await sender.send(prepared(f"http://lab.example:{peer.port}/"))).status_code == 200


async def test_connections_are_kept_while_they_are_good() -> None:
    resolver = Resolver(["127.0.0.1"])
    async with Peer().running() as peer, sending(resolver) as sender:
        for _ in range(5):
            assert (await sender.send(prepared(f"http://lab.example:{peer.port}/"))).status_code == 200
        assert (peer.connections, resolver.asked) == (1, ["lab.example"])
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n" + b"x" * 70_000
    async with Peer(large).running() as peer, sending() as sender:
        for _ in range(2):
            assert (await sender.send(prepared(f"http://127.0.0.1:{peer.port}/"))).status_code == 200
        assert peer.connections == 2


async def test_an_address_that_is_not_public_gets_no_connection() -> None:
    async with Peer().running() as peer, sending(Resolver(["8.8.8.8", "127.0.0.1"]), allow_private=False) as sender:
        for url in ("https://lab.example/", "https://127.0.0.1/", f"http://127.0.0.1:{peer.port}/"):
            outcome = await sender.send(prepared(url))
            assert outcome.final
            assert (outcome.error or "").startswith("refused: ")
        assert peer.connections == 0


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://lab.example/", "the URL must begin with https://"),
        ("https://lab.example:8443/", "the URL must not name a port"),
        ("https://user:password@lab.example/", "the URL must not carry a user name or password"),
    ],
)
async def test_a_url_that_is_not_allowed_is_refused_before_its_host_is_looked_up(url: str, reason: str) -> None:
    resolver = Resolver(["127.0.0.1"])
    async with sending(resolver, allow_private=False) as sender:
        outcome = await sender.send(prepared(url))
    assert (outcome.status_code, outcome.final, resolver.asked) == (None, True, [])
    assert (outcome.error or "").startswith(f"refused: {reason}")


async def test_a_name_that_resolves_anew_between_connections_is_checked_anew() -> None:
    resolver = Resolver(["127.0.0.1"], ["not an address", "10.0.0.1"])
    async with Peer(closes=True).running() as peer, sending(resolver, allow_private=False) as sender:
        first = await sender.send(prepared("https://lab.example/"))
        second = await sender.send(prepared("https://lab.example/"))
        assert first.error == "refused: lab.example: has an address that is not public"
        assert second.error == "refused: lab.example: has an address that is not public"
        assert (peer.connections, resolver.asked) == (0, ["lab.example"] * 2)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a self-signed certificate for `name`, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    alternative: x509.GeneralName = x509.DNSName(name)
    with contextlib.suppress(ValueError):
        alternative = x509.IPAddress(ip_address(name))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=pem)


async def test_the_connection_goes_to_the_checked_address_with_the_urls_host_in_sni(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "lab.example")
    peer = Peer()
    server.sni_callback = lambda _socket, name, _context: peer.names.append(name)
    async with peer.running(server), sending(Resolver(["127.0.0.1"]), context=client) as sender:
        outcome = await sender.send(prepared(f"https://lab.example:{peer.port}/"))
    assert outcome.status_code == 200
    assert peer.names == ["lab.example"]


async def test_a_wrong_certificate_is_a_failure_that_sends_nothing(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "other.example")
    async with Peer().running(server) as peer, sending(Resolver(["127.0.0.1"]), context=client) as sender:
        outcome = await sender.send(prepared(f"https://lab.example:{peer.port}/"))
    assert "CERTIFICATE_VERIFY_FAILED" in (outcome.error or "")
    assert (outcome.final, peer.requests) == (False, [])


async def test_a_timeout_leaves_no_connection_behind() -> None:
    stalled = Peer(b"HTTP/1.1 200", stalls=True)
    async with stalled.running(), sending() as sender:
        outcomes = [await sender.send(prepared(f"http://127.0.0.1:{stalled.port}/", 0.05)) for _ in range(3)]
        assert all(outcome.status_code is None for outcome in outcomes)
        assert stalled.connections == 3
        async with asyncio.timeout(5):
            await asyncio.gather(*(task for task in stalled._open if task is not None))


async def test_a_connection_that_the_receiver_closed_is_not_used_again() -> None:
    async with Peer(closes=True).running() as peer, sending() as sender:
        assert (await sender.send(prepared(f"http://127.0.0.1:{peer.port}/"))).status_code == 200
        async with asyncio.timeout(5):
            await asyncio.gather(*(task for task in peer._open if task is not None))
        peer.requests.clear()
        assert (await sender.send(prepared(f"http://127.0.0.1:{peer.port}/"))).status_code == 200
        assert peer.connections == 2


async def test_many_requests_at_once_share_a_bounded_number_of_connections() -> None:
    async with Peer().running() as peer, sending() as sender:
        url = f"http://127.0.0.1:{peer.port}/"
        for _ in range(2):
            outcomes = await asyncio.gather(*(sender.send(prepared(url)) for _ in range(40)))
            assert all(outcome.status_code == 200 for outcome in outcomes)
        assert peer.connections <= 40


async def test_a_connection_is_used_for_a_minute_so_that_a_moved_name_is_followed() -> None:
    clock, resolver = kit.HandClock(), Resolver(["127.0.0.1"])
    async with Peer().running() as peer, sending(resolver, steady=clock.seconds) as sender:
        for connections in (1, 1, 1, 2):
            assert (await sender.send(prepared(f"http://lab.example:{peer.port}/"))).status_code == 200
            assert (peer.connections, len(resolver.asked)) == (connections, connections)
            clock.move(20)


async def test_an_error_holds_nothing_that_a_database_would_refuse() -> None:
    async def fail(host: str, port: int) -> list[str]:
        raise OSError("no\x00 \ud800\x1b[31m\nhost")

    sender = HttpSender(allow_private=True, resolver=fail)
    outcome = await sender.send(prepared("http://lab.example/"))
    await sender.aclose()
    assert outcome.error == "name look-up failed: no? ??[31m?host"
