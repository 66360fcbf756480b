"""The model server's own routes over TCP: what passes, what is counted, and a wall that no path gets over (3.3)."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from schemas.limits import LimitType, ModelConfig, RateLimit, RateLimitUnit
from schemas.targets import Provider
from schemas.usage import Outcome, Tokens, UsageSource
from tests.integration.proxy.gate import AUTHORIZED, Gate
from tests.integration.proxy.tcp import Line, Received, TcpUpstream
from tests.unit.proxy.front.test_envelopes import HARMLESS, HOSTILE
from tests.unit.proxy.kit import SLUG

PLACE = "/m/abc123/environments/staging"
NOTHING = Tokens(input_tokens=0, output_tokens=0)


@pytest.fixture
async def model(open_gate: Callable[..., Any], upstream: TcpUpstream) -> Gate:
    place = f"http://127.0.0.1:{upstream.port}/m/{{model_id}}/environments/{{environment_name}}"
    opened: Gate = await open_gate(baseten_model_url_template=place)
    opened.target(SLUG, "bt-1", provider=Provider.BASETEN, model_id="abc123", environment_name="staging")
    return opened


def saying(body: bytes, *headers: tuple[str, str], status: int = 200) -> Any:
    async def play(_received: Received, line: Line) -> None:
        await line.answer(body, status, headers)

    return play


async def raw(gate: Gate, target: bytes, method: bytes = b"GET") -> bytes:
    """Send a target as it stands, which no HTTP client would; return the whole answer."""
    reader, writer = await gate.connect()
    head = b"%b %b HTTP/1.1\r\nhost: x\r\nauthorization: %b\r\nconnection: close\r\n\r\n"
    writer.write(head % (method, target, AUTHORIZED["authorization"].encode()))
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("path", ["predict", "async_predict"])
async def test_bodies_and_answers_pass_unchanged(model: Gate, upstream: TcpUpstream, path: str) -> None:
    upstream.play = saying(b"\x00\xffpicture", ("content-type", "image/png"), ("set-cookie", "a=b"))
    sent = b'{"model": "not ours", \xff'
    async with model.client() as client:
        answer = await client.post(f"/{path}/{SLUG}", content=sent, headers={"content-type": "x/y", "cookie": "c"})
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (
        200,
        b"\x00\xffpicture",
        "image/png",
    )
    assert "set-cookie" not in answer.headers
    (received,) = upstream.received
    assert (received.line, received.body) == (f"POST {PLACE}/{path} HTTP/1.1", sent)
    assert {name for name, _ in received.headers} == {
        "accept",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-request-id",
    }
    assert (received.header("content-type"), received.header("authorization")) == ("x/y", "Bearer bt-1")
    event = await model.event()
    assert (event.route, event.outcome, event.tokens) == (path, Outcome.COMPLETE, NOTHING)
    assert event.usage_source is UsageSource.NONE


async def test_the_usage_of_an_answer_counts(model: Gate, upstream: TcpUpstream) -> None:
    upstream.play = saying(b'{"output":"x","usage":{"prompt_tokens":5,"completion_tokens":2}}')
    async with model.client() as client:
        await client.post(f"/predict/{SLUG}", json={"prompt": "Hi"})
    event = await model.event()
    assert (event.tokens, event.usage_source) == (Tokens(input_tokens=5, output_tokens=2), UsageSource.PROVIDER)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def test_every_method_of_sync(model: Gate, upstream: TcpUpstream, method: str) -> None:
    upstream.play = saying(b"" if method == "HEAD" else b"told", ("content-length", "4"))
    async with model.client() as client:
        for _ in range(2):  # the second one shows that the first left nothing behind
            answer = await client.request(method, f"/sync/{SLUG}/v1/things?a=1")
            assert (answer.status_code, answer.content) == (200, b"" if method == "HEAD" else b"told")
    assert [received.line for received in upstream.received] == [f"{method} {PLACE}/sync/v1/things?a=1 HTTP/1.1"] * 2
    assert [event.route for event in model.events] == ["sync"] * 2


async def test_other_methods_are_not_allowed(model: Gate, upstream: TcpUpstream) -> None:
    async with model.client() as client:
        for method, path in (
            ("OPTIONS", f"/sync/{SLUG}/a"),
            ("GET", f"/predict/{SLUG}"),
            ("PUT", f"/async_predict/{SLUG}"),
        ):
            assert (await client.request(method, path)).status_code == 405
    assert not upstream.received


async def test_no_hostile_path_reaches_the_server(model: Gate, upstream: TcpUpstream) -> None:
    prefix = f"/sync/{SLUG}".encode()
    for behind in HOSTILE:
        answer = await raw(model, prefix + behind.encode())
        assert answer.split(b" ")[1] in (b"400", b"404"), behind
    absolute = await raw(model, b"http://evil.example" + prefix + b"/..%2f..%2fpredict")
    assert absolute.startswith(b"HTTP/1.1 400")
    assert not upstream.received
    assert not model.events


async def test_a_harmless_path_arrives_as_it_was_sent(model: Gate, upstream: TcpUpstream) -> None:
    upstream.play = saying(b"told")
    for behind in HARMLESS:
        answer = await raw(model, f"/sync/{SLUG}{behind}?q=%2e%2e".encode())
        assert answer.startswith(b"HTTP/1.1 200"), (behind, answer)
    arrived = [received.line for received in upstream.received]
    assert arrived == [f"GET {PLACE}/sync{behind}?q=%2e%2e HTTP/1.1" for behind in HARMLESS]


async def test_an_answer_comes_piece_by_piece(model: Gate, upstream: TcpUpstream) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream("content-type: text/plain\r\n")
        await line.chunk(b"one")
        await told.wait()
        await line.chunk(b"two")
        await line.end_stream()

    told = asyncio.Event()
    upstream.play = play
    async with model.client() as client, client.stream("POST", f"/predict/{SLUG}", json={}) as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"one"
        assert not model.events
        told.set()
        assert await anext(pieces) == b"two"
        assert [piece async for piece in pieces] == []
        assert len(model.events) == 1  # durable before the client could know that it has all


async def test_what_is_cut_off_does_not_look_whole(model: Gate, upstream: TcpUpstream) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream("content-type: text/plain\r\n")
        await line.chunk(b"half")
        line.break_off()

    upstream.play = play
    async with model.client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(f"/predict/{SLUG}", json={})
    event = await model.event()
    assert (event.outcome, event.tokens, event.usage_source) == (Outcome.UPSTREAM_ERROR, NOTHING, UsageSource.NONE)


async def test_requests_are_limited_and_tokens_do_not_bind_what_never_tells_of_them(
    model: Gate, upstream: TcpUpstream
) -> None:
    upstream.play = saying(b'{"request_id":"r"}')
    limits = (
        RateLimit(type=LimitType.TOKEN, unit=RateLimitUnit.MINUTE, threshold=0),
        RateLimit(type=LimitType.REQUEST, unit=RateLimitUnit.MINUTE, threshold=2),
    )
    model.allow(ModelConfig(slug=SLUG, rate_limits=limits, usage_limits=()))
    async with model.client() as client:
        statuses = [(await client.post(f"/async_predict/{SLUG}", json={})).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await client.post(f"/predict/{SLUG}", json={})).status_code == 429


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_the_servers_errors_pass_and_are_no_event(model: Gate, upstream: TcpUpstream, status: int) -> None:
    upstream.play = saying(b"no", ("content-type", "text/plain"), status=status)
    async with model.client() as client:
        answer = await client.post(f"/predict/{SLUG}", json={})
    assert (answer.status_code, answer.text) == (status, "no")
    assert not model.events


async def test_who_has_no_model_server_is_not_found(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        for path in (f"/predict/{SLUG}", f"/sync/{SLUG}/a", "/predict/lab/none", "/predict/nothing"):
            answer = await client.post(path, content=b"{}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), path
            assert answer.headers["x-request-id"]
        assert (await client.post(f"/predict/{SLUG}", headers={"authorization": "none"})).status_code == 401
    assert not upstream.received
    assert not running.events
