"""Clients that keep exactly to a limit's pace, over a network that is not steady (contract 3.1)."""

import asyncio
from datetime import timedelta

import pytest

from schemas.limits import LimitType, RateLimitUnit
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import ASKED, PLAIN
from tests.unit.proxy.kit import House
from tests.unit.proxy.virtual_time import in_virtual_time


def begun_now() -> House:
    """Return a house whose clocks go with the event loop's."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    return House(passed_s=lambda: loop.time() - begun_s)


async def sent_at(house: House, at_s: float) -> tuple[int | None, float]:
    """Send a request so long after now; return its status, and how long after now its answer was there."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    await asyncio.sleep(at_s)
    house.upstream.answers(PLAIN)
    return (await house.serve(house.client(ASKED))).status, loop.time() - begun_s


@in_virtual_time
async def test_a_client_that_keeps_exactly_to_a_pace_is_never_refused_however_unsteady_its_network_is() -> None:
    house = begun_now()
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(kit.rate(LimitType.REQUEST, 2, RateLimitUnit.SECOND))
    late_s = [0.09, 0.02, 0.0, 0.08, 0.03, 0.0, 0.01, 0.09, 0.0, 0.0]
    sent = [sent_at(house, number / 2 + late) for number, late in enumerate(late_s)]
    assert [status for status, _ in await asyncio.gather(*sent)] == [200] * len(late_s)
    admitted = [draft.timestamp for draft in house.sink.drafts]
    assert all(third - first >= timedelta(seconds=0.999) for first, third in zip(admitted, admitted[2:], strict=False))
    house.assert_all_given_back()


@in_virtual_time
async def test_a_refusal_that_lasts_is_told_at_once_and_one_request_alone_waits_for_a_limit() -> None:
    house = begun_now()
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(kit.rate(LimitType.REQUEST, 1, RateLimitUnit.SECOND))
    sent = [sent_at(house, at_s) for at_s in (0, 0.85, 0.95, 0.98)]
    first, early, waits, behind = await asyncio.gather(*sent)
    assert [first[0], early[0], waits[0], behind[0]] == [200, 429, 200, 429]
    assert (early[1], waits[1], behind[1]) == pytest.approx((0.85, 1.0, 0.98), abs=0.002)
    house.assert_all_given_back()


@in_virtual_time
async def test_who_has_waited_and_finds_the_place_taken_is_refused() -> None:
    house = begun_now()
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(kit.rate(LimitType.REQUEST, 1, RateLimitUnit.SECOND))
    sent = [sent_at(house, at_s) for at_s in (0, 0.9702, 1.0)]
    assert [status for status, _ in await asyncio.gather(*sent)] == [200, 429, 200]
    house.assert_all_given_back()
