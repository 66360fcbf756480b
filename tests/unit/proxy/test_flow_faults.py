"""Requests that end by our own doing: the gateway stops, the spool fails, a fault of ours (contract 4, 7)."""

import asyncio
import json

import pytest

from proxy.core.calls import SpoolUnavailableError
from schemas.usage import Outcome, Tokens, UsageSource
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import (
    ASKED,
    COUNTED,
    DONE,
    HELLO,
    INPUT,
    PLAIN,
    SEEN,
    STREAMED,
    USAGE,
    error_of,
    event_error,
    nothing_known,
)
from tests.unit.proxy.kit import Hang, House, Step
from tests.unit.proxy.virtual_time import in_virtual_time


@pytest.mark.parametrize(
    ("body", "steps", "before", "billed"),
    [
        (STREAMED, [HELLO, Hang()], [], SEEN),
        (ASKED, [Hang()], [], nothing_known(INPUT)),
        (ASKED, [], [Hang()], nothing_known(INPUT)),
    ],
    ids=["in a stream", "in a plain answer", "before the answer"],
)
@in_virtual_time
async def test_a_gateway_that_stops_bills_what_is_in_flight(
    house: House, body: bytes, steps: list[Step], before: list[Step], billed: tuple[UsageSource, Tokens]
) -> None:
    content_type = "text/event-stream" if body is STREAMED else "application/json"
    house.upstream.answers(*steps, content_type=content_type, before=before)
    serving = asyncio.create_task(house.serve(house.client(body)))
    await asyncio.sleep(1)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert house.draft.outcome is Outcome.GATEWAY_INTERRUPTED
    assert (house.draft.usage_source, house.draft.tokens) == billed
    house.assert_all_given_back()


@pytest.mark.parametrize("streamed", [False, True])
@in_virtual_time
async def test_an_event_being_written_when_the_gateway_stops_is_settled(house: House, *, streamed: bool) -> None:
    if streamed:
        house.upstream.streams(HELLO, USAGE, DONE)
    else:
        house.upstream.answers(PLAIN)
    house.sink.held = asyncio.Event()
    serving = asyncio.create_task(house.serve(house.client(STREAMED if streamed else ASKED)))
    await house.sink.writing.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert len(house.slots.open) == 1, "were it killed now, its slot would be billed"
    house.sink.held.set()
    await asyncio.sleep(1)
    assert (house.draft.outcome, house.draft.tokens) == (Outcome.COMPLETE, COUNTED)
    house.assert_all_given_back()


@in_virtual_time
async def test_a_gateway_that_stops_and_cannot_spool_leaves_the_slot_to_the_next_start(house: House) -> None:
    house.upstream.answers(Hang())
    serving = asyncio.create_task(house.serve(house.client(ASKED)))
    await asyncio.sleep(1)
    house.sink.failure = SpoolUnavailableError("full")
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert len(house.slots.open) == 1


@in_virtual_time
async def test_a_blocked_sink_is_told_before_the_body_is_read(house: House) -> None:
    house.sink.blocked = "the disk is full"
    client = await house.serve(house.client(ASKED))
    assert client.status == 503
    assert error_of(client.got)["code"] == "service_unavailable"
    assert client.bodies_read == 0
    assert not house.upstream.requests
    assert not house.windows.taken


@in_virtual_time
async def test_an_answer_that_cannot_be_recorded_is_not_given(house: House) -> None:
    house.sink.failure = SpoolUnavailableError("the disk is full")
    house.upstream.answers(PLAIN)
    client = await house.serve(house.client(ASKED))
    assert client.status == 503
    assert b"hello" not in client.got
    assert client.header(b"x-request-id") == b"request-1"
    house.assert_all_given_back()


@in_virtual_time
async def test_a_stream_that_cannot_be_recorded_ends_in_an_error_and_stays_in_flight(house: House) -> None:
    house.sink.failure = SpoolUnavailableError("the disk is full")
    house.upstream.streams(HELLO, USAGE, DONE)
    client = await house.serve(house.client(STREAMED))
    assert client.ended
    assert b"[DONE]" not in client.got
    assert event_error(client.got)["code"] == "service_unavailable"
    (kept,) = house.slots.open.values()
    assert json.loads(kept)["idempotencyKey"] == "key-2"
    assert (house.windows.settled, house.windows.released) == ([], 0)
    assert house.days.total(kit.GROUP, kit.SLUG, kit.NOW.date())[0] == 1


@pytest.mark.parametrize("streamed", [False, True])
@in_virtual_time
async def test_a_fault_of_ours_gives_everything_back_and_shows(
    house: House, caplog: pytest.LogCaptureFixture, *, streamed: bool
) -> None:
    if streamed:
        house.upstream.streams(HELLO, RuntimeError("bug"))
    else:
        house.upstream.fails(RuntimeError("bug"))
    client = house.client(STREAMED)
    if streamed:  # its connection must not end as if its answer were whole
        with pytest.raises(RuntimeError, match="bug"):
            await house.serve(client)
    else:
        await house.serve(client)
        assert (client.status, client.header(b"x-request-id")) == (500, b"request-1")
    assert "request request-1 failed" in caplog.text
    assert "bug" in caplog.text
    assert [draft.outcome for draft in house.sink.drafts] == [Outcome.UPSTREAM_ERROR] * streamed
    house.assert_all_given_back()


@in_virtual_time
async def test_an_answer_of_more_than_16_mib_counts_as_broken_off(house: House) -> None:
    longest = PLAIN.ljust(16 * 2**20)
    house.upstream.answers(longest[:1000], longest[1000:])
    assert (await house.serve(house.client(ASKED))).status == 200
    house.upstream.answers(longest, b" ")
    assert (await house.serve(house.client(ASKED))).status == 502
