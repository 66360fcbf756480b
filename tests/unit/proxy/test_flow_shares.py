"""What becomes of requests whose workspace has its share, and of those that never end by themselves."""

import asyncio

import pytest

from schemas.usage import Outcome
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import ASKED, ESTIMATED, HELLO, PLAIN, STREAMED, error_of, event_error
from tests.unit.proxy.kit import Hang, House
from tests.unit.proxy.virtual_time import in_virtual_time

LARGE = b"x" * (100 * 1024)


@in_virtual_time
async def test_a_workspace_with_its_share_in_flight_is_refused_before_its_body_is_read() -> None:
    house = House(most_in_flight=4)
    house.upstream.answers(PLAIN, before=[10.0])
    first = asyncio.create_task(house.serve(house.client(ASKED)))
    await asyncio.sleep(1)
    refused = await house.serve(house.client(ASKED))
    assert (refused.status, error_of(refused.got)["code"], refused.bodies_read) == (429, "share_exceeded", 0)
    assert (refused.header(b"retry-after"), refused.header(b"x-request-id")) == (b"1", b"request-3")
    assert (await first).status == 200
    house.upstream.answers(PLAIN)
    assert (await house.serve(house.client(ASKED))).status == 200, "a place was not given back"


@pytest.mark.parametrize(
    ("answer_bytes", "status", "code"),
    [
        (4 * len(LARGE), 429, "share_exceeded"),
        (300 * 1024, 429, "share_exceeded"),
        (40 * len(LARGE), 200, None),
    ],
)
@in_virtual_time
async def test_an_answer_beyond_its_workspaces_share_is_refused_and_billed_for_the_upstream_did_the_work(
    answer_bytes: int, status: int, code: str | None
) -> None:
    house = House(answer_bytes=answer_bytes)
    house.upstream.answers(LARGE, LARGE)
    client = await house.serve(house.client(ASKED))
    assert client.status == status
    if code is None:
        assert client.got == LARGE * 2
    else:
        assert (error_of(client.got)["code"], client.header(b"retry-after")) == (code, b"1")
        assert (house.draft.outcome, house.draft.usage_source) == (Outcome.UPSTREAM_ERROR, ESTIMATED)
    house.assert_all_given_back()


@in_virtual_time
async def test_an_event_of_a_stream_that_does_not_end_takes_of_the_same_share() -> None:
    house = House(answer_bytes=4 * len(LARGE))
    house.upstream.streams(HELLO, b"data: ", LARGE, LARGE, Hang())
    client = await house.serve(house.client(STREAMED))
    assert event_error(client.got)["code"] == "share_exceeded"
    assert house.draft.outcome is Outcome.UPSTREAM_ERROR
    house.assert_all_given_back()


@in_virtual_time
async def test_a_request_ends_in_time_however_busy_its_upstream_is(house: House) -> None:
    house.upstream.streams(*[step for _ in range(10_000) for step in (HELLO, 1.0)])
    began = asyncio.get_running_loop().time()
    client = await house.serve(house.client(STREAMED))
    assert asyncio.get_running_loop().time() - began == pytest.approx(kit.REQUEST_S, abs=1)
    assert event_error(client.got)["code"] == "upstream_timeout"
    assert house.draft.outcome is Outcome.UPSTREAM_ERROR
    house.assert_all_given_back()


@in_virtual_time
async def test_a_fault_before_the_upstream_is_called_is_logged_under_its_id(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.windows.failure = RuntimeError("no windows")
    client = await house.serve(house.client(ASKED))
    assert (client.status, error_of(client.got)["type"]) == (500, "api_error")
    request_id = (client.header(b"x-request-id") or b"").decode()
    assert f"request {request_id} failed" in caplog.text
    assert "no windows" in caplog.text
    house.assert_all_given_back()


@in_virtual_time
async def test_choices_that_were_claimed_and_did_not_come_make_no_estimate_small(house: House) -> None:
    house.upstream.answers(PLAIN.replace(b'"completion_tokens":2', b'"completion_tokens":3000'))
    await house.serve(house.client(ASKED[:-1] + b',"n":9007199254740992}'))
    house.upstream.answers(PLAIN)
    await house.serve(house.client(ASKED))
    claimed, next_one = [place.reserved[1] for _, place in house.windows.taken]
    assert (claimed > 128 * 512, next_one > 3000) == (True, True)
    assert claimed < 129 * 512
