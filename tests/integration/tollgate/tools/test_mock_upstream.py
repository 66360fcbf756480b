"""What the mock upstream remembers: its account and its record, and how it fails when asked to."""

import asyncio
import base64
import json
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tollgate.tools import mock_upstream
from tollgate.tools.mock_upstream import Options

BODY = {"model": "m", "messages": [{"role": "user", "content": "12345678"}]}
COMMAND = [sys.executable, "-c", "from tollgate.cli.mock_upstream import command; command()"]


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=10, trust_env=False)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_every_answer_is_in_the_account_once(tmp_path: Path) -> None:
    path = tmp_path / "account.jsonl"
    async with mock_upstream.running(Options(tokens=3, account=path)) as upstream, client() as http:
        url = f"{upstream.url}/chat/completions"
        await http.post(url, json=BODY, headers={"x-request-id": "plain"})
        await http.post(url, json=BODY | {"stream": True}, headers={"x-request-id": "streamed"})
        await http.post(url, content=b"{")
        sums = (await http.get(upstream.url.removesuffix("/v1") + "/account")).json()
    entries = lines(path)
    assert [entry["request_id"] for entry in entries] == ["plain", "streamed"]
    assert all((e["model"], e["input_tokens"], e["output_tokens"]) == ("m", 2, 3) for e in entries)
    assert all(str(entry["completed_at"]).endswith("Z") for entry in entries)
    assert sums == {"requests": 2, "input_tokens": 4, "output_tokens": 6}


async def test_the_account_goes_on_after_a_restart_and_over_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "account.jsonl"
    path.write_text('{"request_id":"a","model":"m","input_tokens":7,"output_tokens":1,"completed_at":"x"}\n{"request_')
    async with mock_upstream.running(Options(tokens=3, account=path)) as upstream, client() as http:
        await http.post(f"{upstream.url}/chat/completions", json=BODY)
        assert upstream.app.account.sums() == {"requests": 2, "input_tokens": 9, "output_tokens": 4}
    assert json.loads(path.read_text().splitlines()[-1])["output_tokens"] == 3


async def test_a_stream_cut_by_its_client_is_accounted_with_what_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "account.jsonl"
    options = Options(tokens=1000, chunk_interval_ms=20, account=path)
    async with mock_upstream.running(options) as upstream, client() as http:
        url = f"{upstream.url}/chat/completions"
        async with http.stream("POST", url, json=BODY | {"stream": True}) as answer:
            events = answer.aiter_lines()
            for _ in range(6):  # two lines an event: the role and two tokens
                await anext(events)
    (entry,) = lines(path)
    assert 2 <= int(str(entry["output_tokens"])) < 100


async def test_the_record_holds_the_exact_bytes_and_headers(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    body = '{ "z":1.0,"big":123456789012345678901234567890,"model":"m","messages":[],"é":"\\u00e9" }'.encode()
    async with mock_upstream.running(Options(record=path)) as upstream, client() as http:
        await http.post(f"{upstream.url}/chat/completions", content=body, headers={"X-Request-Id": "r"})
    (entry,) = lines(path)
    assert base64.b64decode(str(entry["body"])) == body
    assert entry["request_id"] == "r"
    assert entry["path"] == "/v1/chat/completions"
    assert ["x-request-id", "r"] in entry["headers"]  # type: ignore[operator]


async def test_fails_as_often_as_asked_and_enters_none_of_it() -> None:
    async with mock_upstream.running(Options(fail_rate=0.25)) as upstream, client() as http:
        answers = [await http.post(f"{upstream.url}/chat/completions", json=BODY) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 500] * 2
        assert upstream.app.account.requests == 6


async def test_breaks_streams_in_the_middle() -> None:
    async with mock_upstream.running(Options(tokens=10, break_rate=1)) as upstream, client() as http:
        received = b""
        with pytest.raises(httpx.RemoteProtocolError):
            async with http.stream("POST", f"{upstream.url}/chat/completions", json=BODY | {"stream": True}) as answer:
                async for part in answer.aiter_raw():
                    received += part
        assert received.count(b'"content":"tok') == 5
        assert b"[DONE]" not in received
        assert upstream.app.account.output_tokens == 5
        plain = await http.post(f"{upstream.url}/chat/completions", json=BODY)
        assert plain.status_code == 200


async def test_a_paced_stream_comes_chunk_by_chunk() -> None:
    async with mock_upstream.running(Options(tokens=4, chunk_interval_ms=30)) as upstream, client() as http:
        clock = asyncio.get_running_loop().time
        async with http.stream("POST", f"{upstream.url}/chat/completions", json=BODY | {"stream": True}) as answer:
            moments = [clock() async for line in answer.aiter_lines() if '"content":"tok' in line]
    assert len(moments) == 4
    assert moments[-1] - moments[0] >= 0.06


async def test_an_account_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        async with mock_upstream.running(Options(account=tmp_path)):
            pass


async def _start(*arguments: str) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return process, (await process.stdout.readline()).decode().strip()


async def test_the_command_prints_its_url_and_ends_cleanly_on_sigterm() -> None:
    process, url = await _start()
    async with client() as http:
        assert (await http.post(f"{url}/chat/completions", json=BODY)).status_code == 200
        process.send_signal(signal.SIGTERM)  # with a connection kept alive
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_what_was_answered_is_in_the_account_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "account.jsonl"
    process, line = await _start("--json", "--account", str(path))
    async with client() as http:
        url = json.loads(line)["base_url"]
        for number in range(20):
            await http.post(f"{url}/chat/completions", json=BODY, headers={"x-request-id": str(number)})
        process.kill()
        await process.wait()
    assert [entry["request_id"] for entry in lines(path)] == [str(number) for number in range(20)]


async def test_a_port_in_use_is_one_clear_line() -> None:
    async with mock_upstream.running(Options()) as upstream:
        port = upstream.url.rpartition(":")[2].removesuffix("/v1")
        process = await asyncio.create_subprocess_exec(*COMMAND, "--port", port, stderr=asyncio.subprocess.PIPE)
        _, error = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert f"cannot serve on 127.0.0.1:{port}" in error.decode()
    assert len(error.splitlines()) == 1
