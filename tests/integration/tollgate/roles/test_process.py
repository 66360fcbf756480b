"""However a process ends, every part of it is brought to its end."""

import asyncio
import logging
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from litestar import Litestar
from litestar.handlers import BaseRouteHandler, asgi
from litestar.types import Receive, Scope, Send

from proxy.spool.file import FOLDER
from proxy.spool.writer import open_folder
from runtime.http import health, server
from runtime.kafka.writer import Writer
from runtime.settings import Settings, SpoolSync
from runtime.telemetry.metrics import Telemetry
from runtime.vault import Vault
from tests.contracts.proxy.drafts import draft
from tollgate.roles import process
from tollgate.roles.process import Addresses, Process, Spawn
from tollgate.roles.proxy import ProxyRole


class NotingRole(process.Role):
    """Notes what is asked of it; its draining and its background work may fail."""

    title = "a role"

    def __init__(self, *handlers: BaseRouteHandler, drain_fails: bool = False) -> None:
        self.asked: list[str] = []
        self.handlers = handlers
        self.drain_fails = drain_fails

    def checks(self) -> Mapping[str, health.Check]:
        return {}

    async def start(self, spawn: Spawn) -> None:
        spawn("its work", self._work())

    def public(self, checks: Mapping[str, health.Check]) -> Litestar:
        return Litestar(route_handlers=list(self.handlers), openapi_config=None, logging_config=None)

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show nothing."""

    async def drain(self) -> None:
        self.asked.append("drain")
        if self.drain_fails:
            raise RuntimeError("not drained")

    async def close(self) -> None:
        self.asked.append("close")

    async def _work(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.asked.append("cancelled")
            if not self.handlers:
                raise ValueError("a second one")


@pytest.mark.parametrize("drain_fails", [False, True])
async def test_a_public_port_that_fails_leaves_no_step_of_the_end_out(
    drain_fails: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "tollgate")
    ended: list[str] = []
    serve = server.Server.run_until_stopped

    async def run(self: server.Server) -> None:
        if not is_open.done():  # the operator's port comes first
            is_open.set_result(None)
            await serve(self)
            ended.append("ops")
        else:
            raise OSError("the public port fails")

    is_open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(server.Server, "run_until_stopped", run)
    role = NotingRole(drain_fails=drain_fails)
    with pytest.raises(OSError, match="the public port fails"):
        await Process(Settings(port=0, ops_port=0), role).serve(lambda _: None)
    assert role.asked == ["drain", "cancelled", "close"]
    assert ended == ["ops"]
    others = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert others == [*["not drained"] * drain_fails, "a second one"]


@pytest.mark.parametrize("open_streams", [0, 3])
async def test_streams_beyond_the_grace_are_one_line_together(
    open_streams: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "SHUTDOWN_GRACE_S", 1)
    caplog.set_level(logging.WARNING)
    opened = asyncio.Semaphore(0)

    @asgi("/endless", copy_scope=False)
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        opened.release()
        await asyncio.Event().wait()

    addresses: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    one = Process(Settings(port=0, ops_port=0), NotingRole(endless))
    serving = asyncio.create_task(one.serve(addresses.set_result))
    host, port = urlsplit((await asyncio.wait_for(addresses, 60)).public or "").netloc.split(":")
    writers = []
    for _ in range(open_streams):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        writers.append(writer)
    for _ in range(open_streams):
        await opened.acquire()
    signal.raise_signal(signal.SIGTERM)
    await serving
    for writer in writers:
        writer.close()
    assert caplog.messages == ["3 requests were cut off after 1 s"] * (open_streams > 0)
    assert not any(record.exc_info for record in caplog.records)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with server.listen("127.0.0.1", 0) as listener:
        yield int(listener.getsockname()[1])


async def announced(settings: Settings) -> Addresses:
    """Run a process until it has announced where it listens. Raise what it ends with before that."""
    addresses: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(Process(settings, NotingRole()).serve(addresses.set_result))
    waited: list[asyncio.Future[Any]] = [serving, addresses]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not addresses.done():
        await serving
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(ValueError, match="a second one"):  # the role's own end
        await serving
    return await addresses


async def test_where_the_default_ops_port_is_taken_a_free_one_is_used_and_named(
    taken: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Defaults(Settings):
        ops_port: int = taken

    addresses = await announced(Defaults(port=0))
    assert urlsplit(addresses.ops).port not in {taken, None}
    (said,) = [message for message in caplog.messages if str(taken) in message]
    assert addresses.ops in said
    assert "--ops-port" in said


@pytest.mark.parametrize(
    ("asked", "options"), [("ops_port", "--ops-host and --ops-port"), ("port", "--host and --port")]
)
async def test_a_taken_port_that_was_asked_for_is_refused_with_its_option(asked: str, options: str, taken: int) -> None:
    settings = Settings.model_validate({"port": 0, "ops_port": 0, asked: taken})
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken}: .*; {options} choose"):
        await announced(settings)


async def test_the_public_default_port_is_never_replaced(taken: int) -> None:
    class Defaults(Settings):
        port: int = taken

    with pytest.raises(OSError, match=f"127.0.0.1:{taken}: .*--port"):
        await announced(Defaults(ops_port=0))


async def test_an_ops_port_that_cannot_be_for_another_reason_is_not_replaced() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:8081: .*--ops-host"):
        await announced(Settings(port=0, ops_host="192.0.2.1"))


async def test_a_proxy_closes_its_spool_whatever_its_writer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: object) -> None:
        raise OSError("the writer fails")

    monkeypatch.setattr(Writer, "close", fail)
    settings = Settings(data_dir=tmp_path, kafka_bootstrap="127.0.0.1:1")
    role = ProxyRole(settings, Vault(bytes(32)), None)
    spool = role._proxy.spool
    written = spool.put(draft(0))
    with pytest.raises(OSError, match="the writer fails"):
        await role.close()
    written.cancel()
    again, _ = open_folder(tmp_path / FOLDER, sync=SpoolSync.NORMAL, max_bytes=2**30)
    assert again.file.end == 2, "what was pending is written"
    again.close()
