"""Requests whose clients go away, or take nothing any more: drained, billed, given back (contract 3)."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from proxy.core.calls import BrokenOffError, Failure
from runtime.deadlines import TICK_S
from schemas.usage import Outcome, Tokens, UsageSource
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import (
    ASKED,
    COUNTED,
    DONE,
    HELLO,
    INPUT,
    PLAIN,
    PROVIDER,
    SEEN,
    STREAMED,
    USAGE,
    nothing_known,
)
from tests.unit.proxy.fakes import FakeClient
from tests.unit.proxy.kit import Hang, House, Step
from tests.unit.proxy.virtual_time import in_virtual_time


@dataclass(frozen=True)
class Gone:
    """A client that goes away, and what is billed."""

    steps: Callable[[Callable[[], None]], list[Step]]
    """What the upstream does, given what makes the client leave."""
    before: bool = False
    """Whether that is before its head."""
    stream: bool = False
    billed: tuple[UsageSource, Tokens] | None = None
    took_s: float = 0.0
    drain_max: int = 10
    status: int = 200
    failure: Failure | None = None


GONE = {
    "drained to its counts": Gone(
        lambda leave: [HELLO, leave, 20.0, HELLO, USAGE, DONE], stream=True, billed=(PROVIDER, COUNTED), took_s=20
    ),
    "drained, nothing more came": Gone(
        lambda leave: [HELLO, leave, Hang()], stream=True, billed=SEEN, took_s=kit.DRAIN_S
    ),
    "drained for 30 s in all, however lively": Gone(
        lambda leave: [HELLO, leave, 20.0, b": ping\n\n", 20.0, USAGE, DONE],
        stream=True,
        billed=SEEN,
        took_s=kit.DRAIN_S,
    ),
    "drained, broke off": Gone(lambda leave: [HELLO, leave, BrokenOffError("gone")], stream=True, billed=SEEN),
    "cancelled": Gone(lambda leave: [HELLO, leave, Hang()], stream=True, billed=SEEN, drain_max=0),
    "plain, drained": Gone(lambda leave: [leave, 10.0, PLAIN], billed=(PROVIDER, COUNTED), took_s=10),
    "plain, never came": Gone(lambda leave: [leave, Hang()], billed=nothing_known(INPUT), took_s=kit.DRAIN_S),
    "before the answer, drained": Gone(lambda leave: [leave, 10.0], before=True, billed=(PROVIDER, COUNTED), took_s=10),
    "before the answer, which never came": Gone(
        lambda leave: [leave, Hang()], before=True, billed=nothing_known(INPUT), took_s=kit.DRAIN_S
    ),
    "before the answer, cancelled": Gone(
        lambda leave: [leave, Hang()], before=True, billed=nothing_known(INPUT), drain_max=0
    ),
    "before the answer, just before it was too slow": Gone(
        lambda leave: [280.0, leave, Hang()], before=True, billed=nothing_known(INPUT), took_s=kit.FIRST_BYTE_S
    ),
    "before the answer, too slow by the upstream's own bound": Gone(
        lambda leave: [leave], before=True, billed=nothing_known(INPUT), failure=Failure.TOO_SLOW
    ),
    "before an error": Gone(lambda leave: [leave], before=True, status=500),
    "within an error": Gone(lambda leave: [b"oo", leave, Hang()], status=500, took_s=kit.DRAIN_S),
    "before nobody could be reached": Gone(lambda leave: [leave], before=True, failure=Failure.UNREACHABLE),
}


@pytest.mark.parametrize("case", GONE.values(), ids=GONE.keys())
@in_virtual_time
async def test_a_client_that_goes_away_is_billed(case: Gone) -> None:
    house = House(drain_max=case.drain_max)
    loop = asyncio.get_running_loop()
    client = house.client(STREAMED if case.stream else ASKED)
    steps = case.steps(client.leave)
    content_type = "text/event-stream" if case.stream else "application/json"
    if case.failure is not None:
        house.upstream.fails(case.failure, before=steps)
    elif case.before:
        house.upstream.answers(PLAIN, status=case.status, before=steps)
    else:
        house.upstream.answers(*steps, status=case.status, content_type=content_type)
    began = loop.time()
    await house.serve(client)
    assert loop.time() - began == pytest.approx(case.took_s, abs=1.5 * TICK_S)
    if case.billed is None:
        assert not house.sink.drafts
    else:
        assert (house.draft.usage_source, house.draft.tokens) == case.billed
        assert house.draft.outcome is Outcome.CLIENT_DISCONNECTED
    house.assert_all_given_back()


@in_virtual_time
async def test_a_recording_costs_a_client_that_goes_away_what_media_cost(house: House) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "QUJD" * 40_000, "format": "wav"}}
    asked = json.dumps({"model": "lab/model", "messages": [{"role": "user", "content": [audio]}]}).encode()
    client = house.client(asked)
    house.upstream.answers(client.leave, Hang())
    await house.serve(client)
    assert (house.draft.usage_source, house.draft.tokens) == nothing_known(4 + 1500)


@in_virtual_time
async def test_no_more_than_drain_max_are_drained_at_once() -> None:
    house = House(drain_max=1)
    clients = [house.client(STREAMED) for _ in range(3)]
    began = asyncio.get_running_loop().time()
    took = {}

    async def serve(client: FakeClient) -> None:
        house.upstream.streams(HELLO, client.leave, Hang())
        await house.serve(client)
        took[client] = asyncio.get_running_loop().time() - began

    await asyncio.gather(*map(serve, clients))
    assert [round(took[client]) for client in clients] == [kit.DRAIN_S, 0, 0]
    assert [draft.outcome for draft in house.sink.drafts] == [Outcome.CLIENT_DISCONNECTED] * 3
    house.assert_all_given_back()


@in_virtual_time
async def test_a_client_that_has_its_whole_answer_did_not_go_away(house: House) -> None:
    client = house.client(STREAMED)
    house.upstream.streams(HELLO, USAGE, DONE)
    await house.serve(client)
    assert client.watcher is None
    assert house.draft.outcome is Outcome.COMPLETE


@pytest.mark.parametrize("at", ["its start", "a chunk"])
@in_virtual_time
async def test_a_client_that_stops_reading_counts_as_gone_and_its_upstream_is_drained(house: House, at: str) -> None:
    client = house.client(STREAMED)
    steps: list[Step] = [] if at == "its start" else [HELLO]
    house.upstream.streams(*steps, client.reading.clear, HELLO, 5.0, USAGE, DONE)
    if at == "its start":
        client.reading.clear()
    began = asyncio.get_running_loop().time()
    await house.serve(client)
    assert asyncio.get_running_loop().time() - began == pytest.approx(kit.IDLE_S + 5, abs=1.5 * TICK_S)
    assert house.draft.outcome is Outcome.CLIENT_DISCONNECTED
    assert (house.draft.usage_source, house.draft.tokens) == (PROVIDER, COUNTED)
    assert not client.ended
    house.assert_all_given_back()


@pytest.mark.parametrize("last", [Hang(), BrokenOffError("gone")], ids=["hangs", "breaks off"])
@in_virtual_time
async def test_a_client_that_stops_reading_and_an_upstream_that_does_not_end(house: House, last: Step) -> None:
    client = house.client(STREAMED)
    house.upstream.streams(client.reading.clear, HELLO, last)
    await house.serve(client)
    assert house.draft.outcome is Outcome.CLIENT_DISCONNECTED
    assert (house.draft.usage_source, house.draft.tokens) == SEEN
    house.assert_all_given_back()


@in_virtual_time
async def test_a_slow_client_takes_no_time_from_its_upstream(house: House) -> None:
    client = house.client(STREAMED)
    loop = asyncio.get_running_loop()

    def pause() -> None:
        client.reading.clear()
        loop.call_later(kit.IDLE_S - 1, client.reading.set)

    house.upstream.streams(pause, HELLO, kit.IDLE_S - 1, USAGE, DONE)
    await house.serve(client)
    assert house.draft.outcome is Outcome.COMPLETE
