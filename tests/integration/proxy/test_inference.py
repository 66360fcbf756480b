"""Chat completions over TCP: what reaches the upstream, what reaches the client, who is let in (contract 3)."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.calls import Key
from runtime import ids, version
from runtime.lookups import Lookups
from schemas.config import ConfigKind
from schemas.limits import LimitType, ModelConfig, UsageLimit, UsageLimitUnit
from schemas.usage import Outcome, Tokens
from tests.integration.proxy import gate as gates
from tests.integration.proxy.gate import ASKED, AUTHORIZED, KEY, PATH, Gate
from tests.integration.proxy.tcp import DONE, PLAIN, USAGE, Line, Play, Received, TcpUpstream, piece
from tests.unit.proxy.kit import SLUG


def answering(body: bytes = PLAIN, status: int = 200, **headers: str) -> Play:
    async def play(_received: Received, line: Line) -> None:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await line.answer(body, status, named)

    return play


async def test_a_plain_call(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert answer.status_code == 200
    assert answer.json() == json.loads(PLAIN) | {"model": SLUG}
    event = await running.event()
    assert (event.outcome, event.tokens) == (Outcome.COMPLETE, Tokens(input_tokens=5, output_tokens=2))
    assert event.request_id == answer.headers["x-request-id"] == upstream.received[0].header("x-request-id")


async def test_the_body_reaches_the_upstream_byte_for_byte(running: Gate, upstream: TcpUpstream) -> None:
    body = '{ "z":1.0,"big":123456789012345678901234567890,"model" : "lab/model","e":"\\u00e9é","n":1e5 }'
    async with running.client() as client:
        await client.post(PATH, content=body.encode())
    assert upstream.received[0].body == body.replace("lab/model", "their-model").encode()


async def test_only_our_headers_reach_the_upstream(running: Gate, upstream: TcpUpstream) -> None:
    sent = AUTHORIZED | {
        "accept": "text/html",
        "accept-encoding": "gzip",
        "content-type": "application/json; charset=utf-8",
        "cookie": "a=b",
        "openai-organization": "org",
        "user-agent": "curl",
        "x-forwarded-for": "1.2.3.4",
        "x-request-id": "mine",
    }
    async with running.client() as client:
        answer = await client.post(PATH, content=gates.asked(), headers=sent)
    (received,) = upstream.received
    assert received.line == "POST /v1/chat/completions HTTP/1.1"
    assert dict(received.headers) == {
        "accept": "*/*",
        "content-type": "application/json",
        "content-length": str(len(received.body)),
        "host": f"127.0.0.1:{upstream.port}",
        "user-agent": f"tollgate/{version.current()}",
        "x-request-id": answer.headers["x-request-id"],
    }
    assert len(received.headers) == len(dict(received.headers))
    assert answer.headers["x-request-id"] != "mine"


async def test_only_four_headers_reach_the_client(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering(
        b"slow down",
        429,
        content_type="text/plain",
        retry_after="7",
        retry_after_ms="6500",
        x_should_retry="true",
        set_cookie="a=b",
        server="theirs",
        x_request_id="theirs",
        openai_organization="org",
        x_ratelimit_limit_requests="9",
    )
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.content) == (429, b"slow down")
    ours = dict(answer.headers)
    assert ours.pop("x-request-id") == upstream.received[0].header("x-request-id")
    assert ours == {
        "content-type": "text/plain",
        "content-length": "9",
        "retry-after": "7",
        "retry-after-ms": "6500",
        "x-should-retry": "true",
    }
    assert not running.events


async def test_headers_that_are_no_ascii_do_not_pass(running: Gate, upstream: TcpUpstream) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.raw(b"HTTP/1.1 200 OK\r\nretry-after: \xff\r\ncontent-type: a/\xe9\r\ncontent-length: 2\r\n\r\n{}")

    upstream.play = play
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.content) == (200, b"{}")
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_an_answer_that_is_compressed_unasked_is_decoded(
    running: Gate, upstream: TcpUpstream, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    upstream.play = answering(pack(PLAIN), content_encoding=coding)
    async with running.client() as client, client.stream("POST", PATH, json=ASKED) as answer:
        assert b"".join([piece async for piece in answer.aiter_raw()]) == PLAIN.replace(b"their-model", SLUG.encode())
    assert "content-encoding" not in answer.headers
    assert (await running.event()).tokens == Tokens(input_tokens=5, output_tokens=2)


async def test_a_compressed_stream_is_passed_on_as_it_comes(running: Gate, upstream: TcpUpstream) -> None:
    packer = zlib.compressobj(wbits=31)
    seen = asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream("content-encoding: gzip\r\n")
        await line.chunk(packer.compress(piece("hello")) + packer.flush(zlib.Z_SYNC_FLUSH))
        await seen.wait()
        await line.chunk(packer.compress(USAGE + DONE) + packer.flush())
        await line.end_stream()

    upstream.play = play
    got = b""
    async with running.client() as client, client.stream("POST", PATH, json=ASKED | {"stream": True}) as answer:
        async for chunk in answer.aiter_raw():
            got += chunk
            seen.set()
    assert answer.headers["content-type"] == "text/event-stream"
    assert got == piece("hello").replace(b"their-model", SLUG.encode()) + DONE
    event = await running.event()
    assert (event.outcome, event.tokens) == (Outcome.COMPLETE, Tokens(input_tokens=5, output_tokens=2))


@pytest.mark.parametrize(
    ("coding", "body"), [("br", b"\x0b\x02\x80"), ("gzip", PLAIN), ("gzip", gzip.compress(PLAIN)[:-9])]
)
async def test_a_coding_that_cannot_be_decoded_is_502(
    running: Gate, upstream: TcpUpstream, coding: str, body: bytes
) -> None:
    upstream.play = answering(body, content_encoding=coding)
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert (await running.event()).outcome is Outcome.UPSTREAM_ERROR


async def test_what_media_cost_that_nobody_counted_is_a_setting(
    open_gate: Callable[..., Any], upstream: TcpUpstream
) -> None:
    opened: Gate = await open_gate(estimate_image_tokens=30, estimate_media_tokens=200)
    upstream.play = answering(b'{"choices":[{"message":{"content":"hello"}}]}')
    parts = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, {"type": "file", "file": {}}]
    async with opened.client() as client:
        await client.post(PATH, json=ASKED | {"messages": [{"role": "user", "content": parts}]})
    event = await opened.event()
    assert (event.usage_source, event.tokens) == ("estimated", Tokens(input_tokens=4 + 30 + 200, output_tokens=2))


async def test_a_small_answer_that_stands_for_a_large_one_is_held_to_its_bound(
    running: Gate, upstream: TcpUpstream
) -> None:
    upstream.play = answering(gzip.compress(b" " * 100 * 2**20), content_encoding="gzip")
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert answer.status_code == 502


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "upstream_credential"),
        (403, "upstream_credential"),
        (301, "upstream_redirect"),
        (307, "upstream_redirect"),
    ],
)
async def test_what_becomes_a_502(running: Gate, upstream: TcpUpstream, status: int, code: str) -> None:
    upstream.play = answering(b"{}", status, location=f"{upstream.base_url}/elsewhere")
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, code)
    assert len(upstream.received) == 1, "a redirect was followed"
    assert not running.events


async def test_proxies_of_the_environment_are_ignored(
    upstream: TcpUpstream, open_gate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    running: Gate = await open_gate()
    async with running.client() as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433"])
async def test_a_private_upstream_is_not_connected_to_unless_allowed(
    upstream: TcpUpstream, open_gate: Callable[..., Any], host: str
) -> None:
    running: Gate = await open_gate(allow_private_upstreams=False)
    running.serve(SLUG, f"http://{host}:{upstream.port}/v1")
    async with running.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert upstream.connections == 0
    assert not running.events


async def test_a_name_that_has_a_private_address_among_others_is_not_connected_to(
    upstream: TcpUpstream, open_gate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_up(host: str, port: int) -> list[str]:
        return ["93.184.215.14", "127.0.0.1"]

    monkeypatch.setattr(Lookups, "of", lambda _, __: look_up)
    running: Gate = await open_gate(allow_private_upstreams=False)
    running.serve(SLUG, f"http://model.example:{upstream.port}/v1")
    async with running.client() as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 502
    assert upstream.connections == 0


# --- who is let in ----------------------------------------------------------------------------------------------------


WITHOUT_A_GOOD_KEY = [
    (None, "No credential"),
    (f"Bearer {KEY}", "default_headers"),
    ("Api-Key", "not a key"),
    ("Basic abc", "not known"),
    (f"Api-Key {KEY}x", "not known"),
    (f"Api-Key {KEY[:-1]}", "not known"),
    (f"Api-Key {KEY[:16]}", "not a key"),
    ("Api-Key " + "x" * 60_000, "not a key"),
    ("Api-Key " + "é" * 40, "not a key"),
]


@pytest.mark.parametrize("path", [PATH, "/v1/models", "/v1/models/lab/model", "/v1/usage"])
async def test_without_a_good_key(running: Gate, upstream: TcpUpstream, path: str) -> None:
    async with running.client(headers={}) as client:
        for header, message in WITHOUT_A_GOOD_KEY:
            headers = [] if header is None else [(b"authorization", header.encode())]
            answer = await client.request("POST" if path is PATH else "GET", path, headers=headers)
            assert answer.status_code == 401, header
            assert ids.moment_of(answer.headers["x-request-id"]) is not None
            error = answer.json()["error"]
            assert error["code"] == "invalid_api_key"
            assert message in error["message"]
            assert KEY[16:] not in answer.text
    assert not upstream.received


async def test_bearer_where_it_is_allowed(upstream: TcpUpstream, open_gate: Callable[..., Any]) -> None:
    running: Gate = await open_gate(accept_bearer=True)
    async with running.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200


async def test_a_revoked_key_is_out_at_once(running: Gate) -> None:
    async with running.client() as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 200
        running.apply(ConfigKind.KEY, KEY[:16], None)
        assert (await client.post(PATH, json=ASKED)).status_code == 401


async def test_a_limit_of_the_day_holds_at_once_and_shows(running: Gate, upstream: TcpUpstream) -> None:
    limit = UsageLimit(type=LimitType.REQUEST, unit=UsageLimitUnit.DAY, threshold=2)
    running.allow(ModelConfig(slug=SLUG, usage_limits=(limit,)))
    async with running.client() as client:
        answers = await asyncio.gather(*[client.post(PATH, json=ASKED) for _ in range(5)])
        refused = await client.post(PATH, json=ASKED)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert len(upstream.received) == len(running.events) == 2


# --- what is asked for ------------------------------------------------------------------------------------------------


async def test_chat_completions_are_posted(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = await client.request(method, PATH)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), method
    assert not upstream.received


BAD_BODIES = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b'{"model":"lab/model","x":NaN}', None),
    (b'{"model":"lab/model","x":"\xff"}', None),
    (b"{}", "model"),
    (b'{"model":1}', "model"),
    (b'{"model":"lab/model","metadata":1}', "metadata"),
    (b"[" * 100_000, None),
]


async def test_a_bad_body_is_a_400_that_says_why(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        for body, param in BAD_BODIES:
            answer = await client.post(PATH, content=body)
            assert answer.status_code == 400, body[:50]
            assert answer.json()["error"]["param"] == param
            assert answer.headers["x-request-id"]
    assert not upstream.received


async def test_slugs_that_are_not_there_and_not_allowed_look_the_same(running: Gate) -> None:
    running.serve("lab/secret", "https://up.example/v1")
    async with running.client() as client:
        answers = [await client.post(PATH, json=ASKED | {"model": slug}) for slug in ("lab/secret", "lab/absent")]
    errors = [answer.json()["error"] for answer in answers]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert errors[0]["message"].replace("secret", "absent") == errors[1]["message"]
    assert {error["code"] for error in errors} == {"model_not_found"}


async def test_a_key_is_found_by_its_prefix_alone_and_compared_whole(running: Gate) -> None:
    found = running.proxy.directory.key(KEY[:16])
    assert isinstance(found, Key)
    assert found.group_id == "group"
