"""What is passed on without an event: it holds its workspace's shares while it lasts, nothing else (contract 3.3)."""

import asyncio
import json

import pytest

from proxy.core.calls import BrokenOffError, Failure
from proxy.dialects.routes import messages
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import error_of
from tests.unit.proxy.fakes import FakeClient
from tests.unit.proxy.kit import Hang, House, Step
from tests.unit.proxy.virtual_time import in_virtual_time

ASKED = json.dumps({"model": kit.SLUG, "messages": []}).encode()
TOLD = b'{"input_tokens": 14}'


async def serve(house: House, body: bytes = ASKED) -> FakeClient:
    client = house.client(body)
    await house.gateway.complete(client, messages.ROUTE, house.unmetered.serve)
    return client


def assert_nothing_is_left(house: House) -> None:
    assert not house.sink.drafts
    assert not house.slots.open
    assert not house.windows.taken
    assert house.answers.taken == 0
    assert all(answer.closed == 1 for answer in house.upstream.given)


@in_virtual_time
async def test_the_answer_passes_and_nothing_is_counted() -> None:
    house = House()
    house.upstream.answers(TOLD[:5], TOLD[5:])
    client = await serve(house)
    assert (client.status, client.got, client.header(b"x-request-id")) == (200, TOLD, b"request-1")
    assert json.loads(house.upstream.requests[0].body[:]) == {"model": "their-model", "messages": []}
    assert_nothing_is_left(house)


@pytest.mark.parametrize(("status", "becomes"), [(400, 400), (529, 529), (401, 502)])
@in_virtual_time
async def test_the_upstreams_refusal_passes_but_for_that_of_its_credential(status: int, becomes: int) -> None:
    house = House()
    house.upstream.answers(b"{}", status=status)
    assert (await serve(house)).status == becomes
    assert_nothing_is_left(house)


@pytest.mark.parametrize(
    ("steps", "status"),
    [([BrokenOffError("cut")], 502), ([TOLD, Hang()], 504), ([TOLD, BrokenOffError("cut")], 502)],
)
@in_virtual_time
async def test_an_answer_that_does_not_end_well_is_an_error(steps: list[Step], status: int) -> None:
    house = House()
    house.upstream.answers(*steps)
    assert (await serve(house)).status == status
    assert_nothing_is_left(house)


@in_virtual_time
async def test_an_upstream_that_is_not_there() -> None:
    house = House()
    house.upstream.fails(Failure.UNREACHABLE)
    assert (await serve(house)).status == 502
    assert (await serve(house, b"{")).status == 400
    assert (await serve(house, b'{"model": "lab/none"}')).status == 404
    assert_nothing_is_left(house)


@in_virtual_time
async def test_it_takes_of_its_workspaces_shares_and_gives_back() -> None:
    house = House(most_in_flight=4, answer_bytes=400 * 1024)
    house.upstream.answers(TOLD, before=[10.0])
    first = asyncio.create_task(serve(house))
    await asyncio.sleep(1)  # of virtual time: it waits for its upstream
    refused = await serve(house)
    assert (refused.status, error_of(refused.got)["code"], refused.bodies_read) == (429, "share_exceeded", 0)
    assert (await first).status == 200
    house.upstream.answers(b"x" * 100 * 1024, b"x" * 100 * 1024)
    large = await serve(house)
    assert (large.status, error_of(large.got)["code"]) == (429, "share_exceeded")
    assert_nothing_is_left(house)


@in_virtual_time
async def test_nothing_is_read_on_for_a_client_that_has_gone() -> None:
    house = House()
    house.upstream.answers(TOLD, Hang())
    client = house.client(ASKED)
    serving = asyncio.create_task(house.gateway.complete(client, messages.ROUTE, house.unmetered.serve))
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(1)  # of virtual time: the answer has begun
    client.leave()
    await serving
    assert asyncio.get_running_loop().time() - began < kit.DRAIN_S
    assert_nothing_is_left(house)
