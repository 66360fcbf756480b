"""The nginx and Caddy examples with real traffic: nothing is held back, decoded, cut short or sent twice."""

import asyncio
import os
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.local import certificates, process
from infra.local.process import Process
from tests.architecture import sources
from tests.support import services

NAME = "api.your-lab.com"
WITHIN_S = 60
_READY_S = 30
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
events {{}}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
include {folder}/tollgate.conf; }}
"""


@dataclass
class Upstream:
    """Stands where Tollgate does: notes each request's head, and answers with a stream that ends when it is told to."""

    heads: list[str] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    answers: bool = True
    _open: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @asynccontextmanager
    async def on(self, *ports: int) -> AsyncIterator[None]:
        servers = [await asyncio.start_server(self._serve, process.HOST, port) for port in ports]
        try:
            yield
        finally:
            for server in servers:
                server.close()
            for writer in self._open.values():
                writer.close()
            await asyncio.gather(*self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                self.bodies.append(len(await _body(reader, head.decode())))
                if not self.answers:
                    return
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                writer.write(b"d\r\ndata: first\n\n\r\n")
                await self.go_on.wait()
                writer.write(b"e\r\ndata: second\n\n\r\n0\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side has no more requests
        finally:
            writer.close()


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    if length := re.search(r"content-length: (\d+)", head, re.IGNORECASE):
        return await reader.readexactly(int(length[1]))
    body = b""
    if "chunked" in head.lower():
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return body


@dataclass(frozen=True)
class Front:
    """A running reverse proxy, and the ports behind it."""

    port: int
    tls: ssl.SSLContext
    management: int
    inference: tuple[int, int]

    @asynccontextmanager
    async def call(self, head: str, body: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
        """Send one request; `head` is its first line and further headers."""
        opened = asyncio.open_connection(process.HOST, self.port, ssl=self.tls, server_hostname=NAME)
        reader, writer = await asyncio.wait_for(opened, WITHIN_S)
        writer.write(f"{head}\r\nhost: {NAME}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        try:
            yield reader
        finally:
            writer.transport.abort()  # a close would wait for the other side's


Start = Callable[[Path, Path, dict[str, str]], Process]


def _filled(path: str, changes: dict[str, str]) -> str:
    text = (sources.ROOT / path).read_text(encoding="utf-8")
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


def _nginx(folder: Path, certificate: Path, ports: dict[str, str]) -> Process:
    changes = {f"127.0.0.1:{before}": f"127.0.0.1:{after}" for before, after in ports.items() if before != "443"}
    changes |= {"listen 443 ssl": f"listen 127.0.0.1:{ports['443']} ssl"}
    changes |= {"/etc/tollgate/tls/server.pem": str(certificate), "/etc/tollgate/tls/server.key": str(certificate)}
    (folder / "tollgate.conf").write_text(_filled("infra/nginx/tollgate.conf", changes), encoding="utf-8")
    whole = folder / "nginx.conf"
    whole.write_text(_NGINX.format(folder=folder), encoding="utf-8")
    words = ["/usr/sbin/nginx", "-p", str(folder), "-e", "stderr", "-c", str(whole)]
    subprocess.run([*words, "-t"], check=True, capture_output=True, timeout=_READY_S)
    return process.start("nginx", words, folder / "nginx.log")


def _caddy(folder: Path, certificate: Path, ports: dict[str, str]) -> Process:
    changes = {f"127.0.0.1:{before}": f"127.0.0.1:{after}" for before, after in ports.items() if before != "443"}
    site = f"https://{NAME}:{ports['443']} {{\n\tbind 127.0.0.1\n\ttls {certificate} {certificate}\n"
    text = _filled("infra/caddy/Caddyfile", changes | {f"{NAME} {{\n": site})
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}", encoding="utf-8")
    environment = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    check = ["/usr/bin/caddy", "validate", "--config", str(file), "--adapter", "caddyfile"]
    subprocess.run(check, check=True, capture_output=True, timeout=_READY_S, env=environment)
    words = ["/usr/bin/caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    return process.start("caddy", words, folder / "caddy.log", environment=environment)


STARTS: dict[str, Start] = {"nginx": _nginx, "caddy": _caddy}


@pytest.fixture(scope="module", params=STARTS)
def front(request: pytest.FixtureRequest, front_proxies_installed: None) -> Iterator[Front]:
    """Each of the two, set up by its example; only addresses and certificates are the test's."""
    with services.folder(request.param) as folder:
        files = certificates.make(folder, NAME)
        ports = dict(zip(("443", "8080", "8082", "8083"), map(str, process.free_ports(4)), strict=True))
        running = STARTS[request.param](folder, files.server, ports)
        try:
            port = int(ports["443"])
            running.until(lambda: not process.is_free(port), _READY_S)
            tls = ssl.create_default_context(cafile=files.authority)
            yield Front(port, tls, int(ports["8080"]), (int(ports["8082"]), int(ports["8083"])))
        finally:
            running.stop()


async def _first(reader: asyncio.StreamReader) -> str:
    return (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN_S)).decode()


async def test_a_chunk_leaves_when_it_came(front: Front) -> None:
    upstream = Upstream()
    async with (
        upstream.on(*front.inference),
        front.call("POST /v1/chat/completions HTTP/1.1", b"{}") as reader,
    ):
        assert " 200 " in await _first(reader)
        assert b"first" in await asyncio.wait_for(reader.readuntil(b"first"), WITHIN_S)  # the second is not sent yet
        upstream.go_on.set()
        assert b"second" in await asyncio.wait_for(reader.readuntil(b"second"), WITHIN_S)


async def test_a_slug_is_passed_on_as_it_came(front: Front) -> None:
    upstream = Upstream()
    upstream.go_on.set()
    async with upstream.on(*front.inference), front.call("GET /v1/models/lab%2Fsmall?a=%2F HTTP/1.1") as reader:
        await _first(reader)
    assert upstream.heads[0].splitlines()[0] == "GET /v1/models/lab%2Fsmall?a=%2F HTTP/1.1"
    assert f"host: {NAME}" in upstream.heads[0].lower()


async def test_a_body_of_the_largest_size_passes(front: Front) -> None:
    upstream = Upstream()
    upstream.go_on.set()
    size = 16 * 1024 * 1024
    async with upstream.on(*front.inference), front.call("POST /v1/chat/completions HTTP/1.1", bytes(size)) as reader:
        assert " 200 " in await _first(reader)
    assert upstream.bodies == [size]


@pytest.mark.parametrize("path", ["/v1/gateway/groups", "/v1/secrets"])
async def test_management_goes_to_management(front: Front, path: str) -> None:
    upstream = Upstream()
    upstream.go_on.set()
    async with upstream.on(front.management), front.call(f"GET {path} HTTP/1.1") as reader:
        assert " 200 " in await _first(reader)


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/schema", "/"])
async def test_nothing_else_is_shown(front: Front, path: str) -> None:
    upstream = Upstream()
    async with (
        upstream.on(front.management, *front.inference),
        front.call(f"GET {path} HTTP/1.1") as reader,
    ):
        assert " 404 " in await _first(reader)
    assert upstream.heads == []


async def test_a_call_that_failed_is_not_sent_again(front: Front) -> None:
    """Its upstream may have answered, and been billed, before the connection broke."""
    upstream = Upstream(answers=False)
    async with (
        upstream.on(*front.inference),
        front.call("POST /v1/chat/completions HTTP/1.1", b"{}") as reader,
    ):
        assert " 502 " in await _first(reader)
    assert len(upstream.heads) == 1


async def test_a_client_that_goes_is_gone_upstream_too(front: Front) -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await _body(reader, head.decode())
        writer.write(_HEAD)
        writer.write(b"d\r\ndata: first\n\n\r\n")
        if not await reader.read():
            left.set()
        writer.close()

    servers = [await asyncio.start_server(serve, process.HOST, port) for port in front.inference]
    try:
        async with front.call("POST /v1/chat/completions HTTP/1.1", b"{}") as reader:
            await asyncio.wait_for(reader.readuntil(b"first"), WITHIN_S)
        await asyncio.wait_for(left.wait(), WITHIN_S)
    finally:
        for server in servers:
            server.close()
