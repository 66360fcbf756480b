"""VERTEX targets over TCP: the key's exchange for tokens, and what of the answers is mended (contract 3.3)."""

import asyncio
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from schemas.targets import Provider, VertexConfig
from schemas.usage import Outcome, Tokens
from tests.integration.proxy.gate import ASKED, PATH, Gate
from tests.integration.proxy.tcp import DONE, PLAIN, USAGE, Line, Play, Received, TcpUpstream, answer_plain
from tests.unit.proxy.kit import SLUG

CHAT = "/v1/projects/p-1/locations/global/endpoints/openapi/chat/completions"


class Google:
    """Both Google's token server and its models."""

    def __init__(self, upstream: TcpUpstream) -> None:
        self.upstream = upstream
        self.exchanged: list[dict[str, list[str]]] = []
        self.called: list[Received] = []
        self.expires_in_s = 3600
        self.grants = True
        self.models: Play = answer_plain
        upstream.play = self._play

    async def _play(self, received: Received, line: Line) -> None:
        if received.line == "POST /token HTTP/1.1":
            self.exchanged.append(urllib.parse.parse_qs(received.body.decode()))
            token = {"access_token": f"token-{len(self.exchanged)}", "expires_in": self.expires_in_s}
            await line.answer(
                json.dumps(token if self.grants else {"error": "invalid_grant"}).encode(), 200 if self.grants else 400
            )
        else:
            self.called.append(received)
            await self.models(received, line)

    @property
    def tokens(self) -> list[str | None]:
        return [received.header("authorization") for received in self.called]


@pytest.fixture
def google(upstream: TcpUpstream) -> Google:
    return Google(upstream)


@pytest.fixture(scope="module")
def account() -> str:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return json.dumps({"type": "service_account", "client_email": "a@p.example", "private_key": private.decode()})


@pytest.fixture
async def gemini(open_gate: Callable[..., Any], google: Google, account: str) -> Gate:
    place = f"http://127.0.0.1:{google.upstream.port}"
    opened: Gate = await open_gate(vertex_base_url=place, vertex_token_url=f"{place}/token")
    config = VertexConfig(project_id="p-1", location="global")
    opened.target(SLUG, account, provider=Provider.VERTEX, target_model="google/gemini-1", vertex_config=config)
    return opened


def answering(body: bytes, status: int) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.answer(body, status)

    return play


async def test_one_token_serves_many_calls(gemini: Gate, google: Google) -> None:
    async with gemini.client() as client:
        answers = await asyncio.gather(*(client.post(PATH, json=ASKED) for _ in range(5)))
    assert [answer.json() for answer in answers] == [json.loads(PLAIN) | {"model": SLUG}] * 5
    assert google.tokens == ["Bearer token-1"] * 5
    (exchanged,) = google.exchanged
    assert exchanged["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert google.called[0].line == f"POST {CHAT} HTTP/1.1"
    assert json.loads(google.called[0].body)["model"] == "google/gemini-1"


async def test_a_token_that_ends_soon_is_used_while_it_is_renewed_row_52(gemini: Gate, google: Google) -> None:
    google.expires_in_s = 120
    async with gemini.client() as client:
        await client.post(PATH, json=ASKED)
        google.expires_in_s = 3600
        await client.post(PATH, json=ASKED)
        async with asyncio.timeout(20):
            while google.tokens[-1] != "Bearer token-2":
                await client.post(PATH, json=ASKED)
    assert google.tokens[:2] == ["Bearer token-1", "Bearer token-1"]
    assert len(google.exchanged) == 2


async def test_a_refused_token_is_renewed_once_row_52(gemini: Gate, google: Google) -> None:
    async def refusing(received: Received, line: Line) -> None:
        await line.answer(PLAIN, 401 if received.header("authorization") == "Bearer token-1" else 200)

    google.models = refusing
    async with gemini.client() as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 200
        google.models = answering(b"{}", 401)
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_credential")
    assert google.tokens == ["Bearer token-1", "Bearer token-2", "Bearer token-2", "Bearer token-3"]


async def test_a_key_that_gets_no_token_is_a_502(
    gemini: Gate, google: Google, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    google.grants = False
    async with gemini.client() as client:
        for _ in range(3):
            answer = await client.post(PATH, json=ASKED)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_credential")
    assert len(google.exchanged) == 1  # the next is tried after a while
    assert not google.called
    assert not gemini.events
    assert "a@p.example gets no access token" in caplog.text
    assert json.loads(account)["private_key"][40:80] not in caplog.text


async def test_a_key_that_cannot_be_read_is_a_502(gemini: Gate, google: Google, account: str) -> None:
    bent = json.dumps(json.loads(account) | {"private_key": "-----BEGIN PRIVATE KEY-----\nnone\n"})
    config = VertexConfig(project_id="p-1", location="global")
    gemini.target(SLUG, bent, provider=Provider.VERTEX, target_model="google/gemini-1", vertex_config=config)
    async with gemini.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_credential")
    assert not google.exchanged


async def test_an_error_in_a_list_is_in_openais_shape_row_55(gemini: Gate, google: Google) -> None:
    google.models = answering(b'[{"error":{"code":400,"message":"Bad.","status":"INVALID_ARGUMENT"}}]', 400)
    async with gemini.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "Bad.",
        "type": "invalid_request_error",
        "param": None,
        "code": "INVALID_ARGUMENT",
    }


async def test_calls_in_a_stream_are_numbered_row_56(gemini: Gate, google: Google) -> None:
    called = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunk = json.dumps({"model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [called]}}]}).encode()

    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for data in (b"data: " + chunk + b"\n\n", USAGE, DONE):
            await line.chunk(data)
        await line.end_stream()

    google.models = play
    async with gemini.sdk() as sdk:
        stream = await sdk.chat.completions.create(**ASKED, stream=True)
        calls = [call async for part in stream for call in part.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.id) for call in calls] == [(0, "a")]
    event = await gemini.event()
    assert (event.outcome, event.tokens) == (Outcome.COMPLETE, Tokens(input_tokens=5, output_tokens=2))
