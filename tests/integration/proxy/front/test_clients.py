"""Clients that people use, as they are: curl, Java's HttpClient, and nginx in front with its default settings.

They are part of what the tests need; one that is missing fails its test, with the line that installs it.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.proxy import gate as gates
from tests.integration.proxy.gate import ASKED, AUTHORIZED, PATH, Gate
from tests.integration.proxy.tcp import DONE, USAGE, Line, Received, TcpUpstream, piece, stream_hello
from tests.integration.runtime.http import wire as wires

BODY = gates.asked().decode()
NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream gateway {{ server 127.0.0.1:{gateway}; {keepalive} }}
    server {{ listen unix:{folder}/socket; location / {{ proxy_pass http://gateway; {more} }} }}
}}"""
SETTINGS = {
    "default": ("", ""),
    "keepalive": ("keepalive 4;", 'proxy_http_version 1.1; proxy_set_header Connection "";'),
}


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    assert found, f"the tests need {name}; type: apt-get install -y --no-install-recommends {package}"
    return found


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return told.decode()


@pytest.mark.parametrize("version", ["--http2", "--http1.1", "--http1.0", "--http2-prior-knowledge"])
async def test_curl(running: Gate, version: str) -> None:
    curl = [program("curl", "curl"), "-s", version, "-m", "20", "-H", f"authorization: {AUTHORIZED['authorization']}"]
    call = ["-H", "content-type: application/json", "-d", BODY, "-w", "\n%{http_code}", f"{running.url}{PATH}"]
    if version == "--http2-prior-knowledge":  # it sends HTTP/2 without asking, which ends in one line
        process = await asyncio.create_subprocess_exec(*curl, *call, stdout=asyncio.subprocess.DEVNULL)
        assert await asyncio.wait_for(process.wait(), 60) != 0
        return
    answer, status = (await output(*curl, *call)).rsplit("\n", 1)
    assert (status, json.loads(answer)["model"]) == ("200", ASKED["model"])


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
async def test_curl_asks_before_it_sends_much(running: Gate, upstream: TcpUpstream, tmp_path: Path, size: int) -> None:
    body = tmp_path / "large.json"
    body.write_bytes(gates.asked(x="y" * size))
    call = [program("curl", "curl"), "-s", "-m", "30", "-H", f"authorization: {AUTHORIZED['authorization']}"]
    options = ["-H", "expect: 100-continue", "--expect100-timeout", "20", "--data-binary", f"@{body}"]
    answer = await output(*call, *options, f"{running.url}{PATH}")
    assert json.loads(answer)["model"] == ASKED["model"]
    assert len(upstream.received[0].body) > size


async def test_java(running: Gate) -> None:
    java = program("java", "default-jre-headless")
    source = Path(__file__).with_name("Ask.java")
    told = await output(java, str(source), f"{running.url}{PATH}", AUTHORIZED["authorization"], BODY)
    lines = [line.split(" ", 2) for line in told.splitlines()]
    assert [line[:2] for line in lines] == [["200", "HTTP_1_1"]] * 2
    assert {json.loads(line[2])["model"] for line in lines} == {ASKED["model"]}


@asynccontextmanager
async def behind_nginx(gate: Gate, folder: Path, settings: str) -> AsyncIterator[httpx.AsyncClient]:
    nginx = program("nginx", "nginx-light")
    keepalive, more = SETTINGS[settings]
    text = NGINX.format(folder=folder, gateway=gate.port, keepalive=keepalive, more=more)
    await asyncio.to_thread((folder / "nginx.conf").write_text, text)
    process = await asyncio.create_subprocess_exec(nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder))
    try:
        await wires.until((folder / "socket").exists)
        transport = httpx.AsyncHTTPTransport(uds=str(folder / "socket"))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers=AUTHORIZED, timeout=30
        ) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("settings", SETTINGS)
async def test_nginx_in_front_passes_each_chunk_on_when_it_comes(
    running: Gate, upstream: TcpUpstream, tmp_path: Path, settings: str
) -> None:
    """Were any chunk held back for another, both sides would wait for ever."""
    has_it = asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for number in range(5):
            await line.chunk(piece(f"{number}."))
            await asyncio.wait_for(has_it.wait(), 30)
            has_it.clear()
        await line.chunk(USAGE + DONE)
        await line.end_stream()

    upstream.play = play
    async with behind_nginx(running, tmp_path, settings) as client:
        for _ in range(2):
            async with client.stream("POST", PATH, json=ASKED | {"stream": True}) as answer:
                assert answer.status_code == 200
                got, seen = b"", 0
                async for chunk in answer.aiter_raw():
                    got += chunk
                    if got.count(b'"content"') > seen:
                        seen += 1
                        has_it.set()
                assert got.endswith(DONE)


@pytest.mark.parametrize("settings", SETTINGS)
async def test_nginx_in_front_with_plain_calls_and_clients_that_go(
    running: Gate, upstream: TcpUpstream, tmp_path: Path, settings: str
) -> None:
    async with behind_nginx(running, tmp_path, settings) as client:
        for _ in range(3):
            assert (await client.post(PATH, json=ASKED)).json()["model"] == ASKED["model"]
        assert (await client.post(PATH, json=ASKED, headers={"authorization": "Api-Key x"})).status_code == 401
        upstream.play = stream_hello
        assert (await client.post(PATH, json=ASKED | {"stream": True})).content.endswith(DONE)
        assert (await client.get("/v1/models")).status_code == 200
