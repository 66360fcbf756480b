"""A trial call of a model: where it goes, and what of an answer is shown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from control import trial_call
from control.core.refusals import InvalidError, OverloadedError
from control.trial_call import TrialCall
from runtime.settings import Settings


class Answering:
    """A server that answers every request with the same bytes, once it may."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.may_answer.set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        self.asked.append(head + await reader.readexactly(length))
        self.was_asked.set()
        await self.may_answer.wait()
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[Answering, TrialCall]]:
    made = Answering(answer)
    async with await asyncio.start_server(made.take, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield made, TrialCall(Settings(inference_url=f"http://127.0.0.1:{port}"))


def answer(status: str, body: bytes, header: str = "x-request-id: one") -> bytes:
    return f"HTTP/1.1 {status}\r\n{header}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def test_the_answer_is_shown_with_its_status_and_headers() -> None:
    async with answering(answer("429 Too Many Requests", b'{"error": {}}')) as (server, call):
        got = await call.make("sky_key", "acme/m", 'say "hi"')
    assert (got.status, got.body, got.request_id) == (429, '{"error": {}}', "one")
    (asked,) = server.asked
    assert asked.startswith(b"POST /v1/chat/completions ")
    assert b"Api-Key sky_key" in asked
    assert asked.endswith(b'{"model":"acme/m","messages":[{"role":"user","content":"say \\"hi\\""}]}')


async def test_of_a_long_answer_the_beginning_is_read() -> None:
    async with answering(answer("200 OK", b"x" * (trial_call.MOST_BYTES + 1))) as (_, call):
        assert len((await call.make("sky_key", "acme/m", "hi")).body) == trial_call.MOST_BYTES


async def test_no_answer_leads_elsewhere() -> None:
    async with answering(answer("307 Temporary Redirect", b"", "location: http://evil.example/")) as (server, call):
        assert (await call.make("sky_key", "acme/m", "hi")).status == 307
    assert len(server.asked) == 1


async def test_calls_go_one_at_a_time() -> None:
    async with answering(answer("200 OK", b"{}")) as (server, call):
        server.may_answer.clear()
        first = asyncio.create_task(call.make("sky_key", "acme/m", "hi"))
        await server.was_asked.wait()
        with pytest.raises(OverloadedError):
            await call.make("sky_key", "acme/m", "hi")
        server.may_answer.set()
        assert (await first).status == 200


async def test_a_call_has_a_bound_and_says_that_nothing_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_call, "WITHIN_S", 0)
    async with answering(answer("200 OK", b"{}")) as (server, call):
        server.may_answer.clear()
        got = await call.make("sky_key", "acme/m", "hi")
        server.may_answer.set()
    assert (got.status, got.request_id) == (0, None)
    assert "no answer" in got.body


@pytest.mark.parametrize("key", ["", "sky key", "sky\r\nx: y", "skÿ", "s" * 513])
async def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidError, match="developer's key"):
        await TrialCall(Settings()).make(key, "acme/m", "hi")


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"host": "0.0.0.0", "port": 9000}, "http://127.0.0.1:9000"),
        ({"port": 0}, None),
        ({"kafka_bootstrap": "kafka:9092"}, None),
        ({"kafka_bootstrap": "kafka:9092", "inference_url": "https://api.acme.example"}, "https://api.acme.example"),
    ],
)
def test_it_goes_where_the_settings_say(settings: dict[str, object], place: str | None) -> None:
    assert trial_call.place(Settings.model_validate(settings)) == place


async def test_where_it_is_unknown_the_setting_is_named() -> None:
    with pytest.raises(InvalidError, match="TOLLGATE_INFERENCE_URL"):
        await TrialCall(Settings(port=0)).make("sky_key", "acme/m", "hi")
