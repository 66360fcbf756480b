"""How requests end whose clients stay: what they get, what is billed, and that all is given back (contract 3, 4)."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from proxy.core.calls import BrokenOffError, Failure
from runtime.deadlines import TICK_S
from schemas.limits import LimitType
from schemas.usage import Outcome, Tokens, UsageSource
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import (
    ASKED,
    COMPLETE,
    COUNTED,
    DONE,
    ELEVEN_BYTES,
    ESTIMATED,
    HELLO,
    HELLO_SENT,
    INPUT,
    INPUT_STREAMED,
    NO_USAGE,
    PLAIN,
    PROVIDER,
    STREAMED,
    UPSTREAM_ERROR,
    USAGE,
    error_of,
    event_error,
)
from tests.unit.proxy.kit import Hang, House, Step
from tests.unit.proxy.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Case:
    """What an upstream does to a client that stays, and what comes of it."""

    steps: Sequence[Step] = ()
    failure: Failure | None = None
    before: Sequence[Step] = ()
    status: int = 200
    stream: bool = False
    answer: tuple[int, str | None] = (200, None)
    """Status, and the code of the error that the client sees, if any."""
    billed: tuple[Outcome, UsageSource, Tokens] | None = None
    took_s: float = 0.0


CASES = {
    "plain": Case([PLAIN], billed=(COMPLETE, PROVIDER, COUNTED)),
    "plain in pieces": Case([PLAIN[:9], 100.0, PLAIN[9:]], billed=(COMPLETE, PROVIDER, COUNTED), took_s=100),
    "plain, longer than the idle bound, never silent for it": Case(
        [b" ", 100.0, b" ", 100.0, PLAIN], billed=(COMPLETE, PROVIDER, COUNTED), took_s=200
    ),
    "plain without counts": Case(
        [NO_USAGE], billed=(COMPLETE, ESTIMATED, Tokens(input_tokens=INPUT, output_tokens=ELEVEN_BYTES))
    ),
    "plain that is no JSON": Case(
        [b"\x1f\x8b12345678"], billed=(COMPLETE, ESTIMATED, Tokens(input_tokens=INPUT, output_tokens=1))
    ),
    "streamed": Case([HELLO, USAGE, DONE], stream=True, billed=(COMPLETE, PROVIDER, COUNTED)),
    "streamed, no end after [DONE]": Case(
        [HELLO, USAGE + DONE, Hang()], stream=True, billed=(COMPLETE, PROVIDER, COUNTED)
    ),
    "streamed without counts": Case(
        [HELLO, DONE],
        stream=True,
        billed=(COMPLETE, ESTIMATED, Tokens(input_tokens=INPUT_STREAMED, output_tokens=ELEVEN_BYTES)),
    ),
    "streamed without [DONE]": Case([HELLO, USAGE], stream=True, billed=(COMPLETE, PROVIDER, COUNTED)),
    "bad request": Case([b'{"error":1}'], status=400, answer=(400, None)),
    "server error": Case([b"oops"], status=500, answer=(500, None)),
    "wrong credential": Case([b"who?"], status=401, answer=(502, "upstream_credential")),
    "forbidden": Case([b"no"], status=403, answer=(502, "upstream_credential")),
    "redirect": Case([b"there"], status=302, answer=(502, "upstream_redirect")),
    "not modified": Case([], status=304, answer=(502, "upstream_redirect")),
    "unreachable": Case(failure=Failure.UNREACHABLE, answer=(502, "upstream_unreachable")),
    "refused address": Case(failure=Failure.REFUSED_ADDRESS, answer=(502, "upstream_unreachable")),
    "slow to connect": Case(failure=Failure.CONNECT_TOO_SLOW, answer=(504, "upstream_timeout")),
    "too slow by its own bound": Case(failure=Failure.TOO_SLOW, answer=(504, "upstream_timeout")),
    "broke off before its answer": Case(failure=Failure.BROKE_OFF, answer=(502, "upstream_error")),
    "no first byte": Case(before=[Hang()], answer=(504, "upstream_timeout"), took_s=kit.FIRST_BYTE_S),
    "first byte just in time": Case(
        [PLAIN], before=[kit.FIRST_BYTE_S - 1], billed=(COMPLETE, PROVIDER, COUNTED), took_s=kit.FIRST_BYTE_S - 1
    ),
    "plain, broke off": Case(
        [PLAIN[:9], BrokenOffError("gone")],
        answer=(502, "upstream_error"),
        billed=(UPSTREAM_ERROR, ESTIMATED, Tokens(input_tokens=INPUT, output_tokens=0)),
    ),
    "plain, fell silent": Case(
        [PLAIN[:9], Hang()],
        answer=(504, "upstream_timeout"),
        billed=(UPSTREAM_ERROR, ESTIMATED, Tokens(input_tokens=INPUT, output_tokens=0)),
        took_s=kit.IDLE_S,
    ),
    "error body broke off": Case([b"oo", BrokenOffError("gone")], status=500, answer=(502, "upstream_error")),
    "error body fell silent": Case([Hang()], status=500, answer=(504, "upstream_timeout"), took_s=kit.IDLE_S),
    "stream broke off": Case(
        [HELLO, b'data: {"half', BrokenOffError("gone")],
        stream=True,
        answer=(200, "upstream_error"),
        billed=(
            UPSTREAM_ERROR,
            ESTIMATED,
            Tokens(input_tokens=INPUT_STREAMED, output_tokens=ELEVEN_BYTES),
        ),
    ),
    "stream broke off after its counts": Case(
        [HELLO, USAGE, BrokenOffError("gone")],
        stream=True,
        answer=(200, "upstream_error"),
        billed=(UPSTREAM_ERROR, PROVIDER, COUNTED),
    ),
    "stream fell silent": Case(
        [HELLO, Hang()],
        stream=True,
        answer=(200, "upstream_timeout"),
        billed=(
            UPSTREAM_ERROR,
            ESTIMATED,
            Tokens(input_tokens=INPUT_STREAMED, output_tokens=ELEVEN_BYTES),
        ),
        took_s=kit.IDLE_S,
    ),
    "stream broke off before its first event": Case(
        [BrokenOffError("gone")],
        stream=True,
        answer=(502, "upstream_error"),
        billed=(UPSTREAM_ERROR, ESTIMATED, Tokens(input_tokens=INPUT_STREAMED, output_tokens=0)),
    ),
}


def passed_on(case: Case) -> bytes:
    """Return what a client gets of an answer that is passed on whole."""
    sent = b"".join(step for step in case.steps if isinstance(step, bytes) and step is not USAGE).replace(USAGE, b"")
    return sent.replace(b"their-model", b"lab/model")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@in_virtual_time
async def test_a_client_that_stays(house: House, case: Case) -> None:
    loop = asyncio.get_running_loop()
    if case.failure is not None:
        house.upstream.fails(case.failure)
    else:
        content_type = "text/event-stream" if case.stream else "application/json"
        house.upstream.answers(*case.steps, status=case.status, content_type=content_type, before=case.before)
    began = loop.time()
    client = await house.serve(house.client(STREAMED if case.stream else ASKED))
    status, code = case.answer
    assert client.status == status
    assert client.ended
    assert loop.time() - began == pytest.approx(case.took_s, abs=1.5 * TICK_S)
    assert client.header(b"x-request-id") == b"request-1"
    if code is None:
        assert client.got == passed_on(case)
    else:
        assert (event_error(client.got) if case.stream else error_of(client.got))["code"] == code
        assert b"[DONE]" not in client.got
    if case.billed is None:
        assert not house.sink.drafts
    else:
        draft = house.draft
        assert (draft.outcome, draft.usage_source, draft.tokens) == case.billed
        assert house.journal.index("put") < house.journal.index("last")
    house.assert_all_given_back()


@in_virtual_time
async def test_the_event_is_put_before_the_answers_last_byte(house: House) -> None:
    house.upstream.answers(PLAIN)
    await house.serve(house.client(ASKED))
    assert house.journal == ["put", "start", "last"]


@in_virtual_time
async def test_each_chunk_leaves_when_it_comes_and_only_done_waits_for_the_event(house: House) -> None:
    client = house.client(STREAMED)
    seen: list[bytes] = []
    house.upstream.streams(HELLO, lambda: seen.append(client.got), HELLO, lambda: seen.append(client.got), USAGE, DONE)
    await house.serve(client)
    assert seen == [HELLO_SENT, HELLO_SENT * 2]
    assert house.journal == ["start", "send", "send", "put", "last"]
    assert client.pieces[-1] == DONE


@pytest.mark.parametrize("content_type", ["application/json", "text/plain; charset=utf-8", "", None])
@in_virtual_time
async def test_a_stream_under_another_content_type_leaves_as_it_comes(house: House, content_type: str | None) -> None:
    client = house.client(STREAMED)
    seen: list[bytes] = []
    steps: list[Step] = [b"\xef\xbb", b"\xbf\nda", HELLO[2:], lambda: seen.append(client.got), HELLO, USAGE, DONE]
    house.upstream.answers(*steps, content_type=content_type)
    await house.serve(client)
    assert seen == [b"\n" + HELLO_SENT]
    assert client.got == b"\n" + HELLO_SENT * 2 + DONE
    assert client.header(b"content-type") == b"text/event-stream"
    assert (house.draft.outcome, house.draft.tokens) == (COMPLETE, COUNTED)


@in_virtual_time
async def test_a_plain_answer_to_who_asked_for_a_stream_is_called_what_it_is(house: House) -> None:
    house.upstream.streams(PLAIN)
    client = await house.serve(house.client(STREAMED))
    assert client.got == PLAIN.replace(b"their-model", b"lab/model")
    assert client.header(b"content-type") == b"application/json"
    assert (house.draft.outcome, house.draft.tokens) == (COMPLETE, COUNTED)


@in_virtual_time
async def test_what_the_upstream_is_sent(house: House) -> None:
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route(credential="secret", by_operator=True)
    house.upstream.streams(DONE)
    await house.serve(house.client(STREAMED))
    (sent,) = house.upstream.requests
    assert sent.url == "https://up.example/v1/chat/completions"
    assert (sent.credential, sent.by_operator) == ("secret", True)
    assert sent.request_id == "request-1" == house.draft.request_id
    assert json.loads(sent.body[:]) == json.loads(STREAMED) | {
        "model": "their-model",
        "stream_options": {"include_usage": True},
    }


@in_virtual_time
async def test_the_facts_of_an_event(house: House) -> None:
    body = ASKED[:-1] + b',"metadata":{"team":"blue"}}'
    house.upstream.answers(0.25, PLAIN, before=[1.5])
    await house.serve(house.client(body))
    draft = house.draft
    assert draft.model_dump(by_alias=False, exclude={"tokens", "outcome", "usage_source"}) == {
        "idempotency_key": "key-2",
        "request_id": "request-1",
        "timestamp": kit.NOW.replace(microsecond=250_000),
        "workspace_id": kit.WORKSPACE,
        "group_id": kit.GROUP,
        "charged_groups": kit.CHARGED,
        "parent_groups": (),
        "external_entity_id": "customer-1",
        "api_key_prefix": kit.key().prefix,
        "model_slug": kit.SLUG,
        "request_metadata": {"team": "blue"},
        "kind": "usage",
        "corrects": None,
        "reason": None,
        "stream": False,
        "route": "chat.completions",
        "latency_ms": 1750,
        "first_byte_ms": 1500,
    }


@in_virtual_time
async def test_upstream_headers_and_rate_headers_are_on_the_answer(house: House) -> None:
    limit = kit.rate(LimitType.REQUEST, 9)
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(limit)
    house.upstream.answers(PLAIN, headers=[(b"x-should-retry", b"false")])
    client = await house.serve(house.client(ASKED))
    assert dict(client.headers) == {
        b"content-type": b"application/json",
        b"x-should-retry": b"false",
        b"x-request-id": b"request-1",
        b"x-ratelimit-limit-requests": b"9",
        b"x-ratelimit-remaining-requests": b"8",
        b"x-ratelimit-reset-requests": b"1m0s",
    }


@in_virtual_time
async def test_a_stream_is_expected_to_end_once_done_was_read_but_not_when_it_breaks_off(house: House) -> None:
    whole: list[Step] = [HELLO, USAGE, DONE, Hang()]
    broken: list[Step] = [HELLO, BrokenOffError("gone")]
    for steps, is_expected in ((whole, True), (broken, False)):
        house.upstream.streams(*steps)
        await house.serve(house.client(STREAMED))
        assert house.upstream.given[-1].end_expected is is_expected
