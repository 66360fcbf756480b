"""The one bound around a request that moves with what is expected (contract 3)."""

import asyncio
from typing import Any

import pytest

from proxy.deadlines import Deadline, Drains
from runtime.deadlines import TICK_S, Deadlines
from schemas.usage import Outcome
from tests.unit.proxy.virtual_time import in_virtual_time


def bound_by(drains: Drains) -> Deadline:
    return Deadline(drains, Deadlines())


def within_a_tick(seconds: float) -> Any:
    """Stand for a time that may be noticed one tick later, or be counted from one tick before."""
    return pytest.approx(seconds, abs=1.5 * TICK_S)


def now_s() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_each_wait_has_its_own_bound() -> None:
    began = now_s()
    with pytest.raises(TimeoutError), bound_by(Drains(30, 1)) as bound:
        for _ in range(5):
            bound.expect(10)
            await asyncio.sleep(9)
        bound.expect(10)
        await asyncio.sleep(11)
    assert now_s() - began == within_a_tick(55)


@in_virtual_time
async def test_a_shorter_bound_holds_although_a_longer_one_was_set() -> None:
    began = now_s()
    with pytest.raises(TimeoutError), bound_by(Drains(30, 1)) as bound:
        bound.expect(300)
        bound.expect(120)
        bound.expect(5)
        await asyncio.sleep(1000)
    assert now_s() - began == within_a_tick(5)


@in_virtual_time
async def test_after_the_drain_began_no_wait_is_longer_than_what_is_left_of_it() -> None:
    began = now_s()
    drains = Drains(30, 1)
    with pytest.raises(TimeoutError), bound_by(drains) as bound:
        bound.expect(100)
        await asyncio.sleep(50)
        bound.client_gone()
        assert drains.open == 1
        bound.expect(100)
        await asyncio.sleep(20)
        bound.client_gone()  # told twice, it is gone once
        bound.expect(100)
        await asyncio.sleep(100)
    assert now_s() - began == within_a_tick(80)
    assert drains.open == 0
    assert bound.outcome is Outcome.CLIENT_DISCONNECTED


@in_virtual_time
async def test_a_drain_prolongs_nothing() -> None:
    began = now_s()
    with pytest.raises(TimeoutError), bound_by(Drains(30, 1)) as bound:
        bound.expect(10)
        bound.client_gone()
        await asyncio.sleep(100)
    assert now_s() - began == within_a_tick(10)


@in_virtual_time
async def test_a_client_that_goes_when_all_is_over_changes_nothing() -> None:
    drains = Drains(30, 1)
    with bound_by(drains) as bound:
        bound.expect(10)
    bound.client_gone()
    assert not bound.gone
    assert drains.open == 0
    await asyncio.sleep(100)  # nothing is left that would go off


@in_virtual_time
async def test_nothing_expected_is_no_bound() -> None:
    with bound_by(Drains(30, 1)):
        await asyncio.sleep(10**4)


@in_virtual_time
async def test_whose_fault_it_is() -> None:
    with pytest.raises(TimeoutError), bound_by(Drains(30, 1)) as bound:
        bound.expect(10, for_client=True)
        bound.expect(10)
        assert bound.outcome is Outcome.UPSTREAM_ERROR
        bound.expect(10, for_client=True)
        await asyncio.sleep(20)
    assert bound.outcome is Outcome.CLIENT_DISCONNECTED
    assert not bound.gone


@in_virtual_time
async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    drains = Drains(30, 1)

    async def wait() -> None:
        with bound_by(drains) as bound:
            bound.expect(10)
            bound.client_gone()
            await asyncio.sleep(100)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert drains.open == 0


@in_virtual_time
async def test_a_body_that_ends_without_a_wait_leaves_no_cancellation_behind() -> None:
    """Its client had gone before, and nothing is drained."""
    with bound_by(Drains(30, 0)) as bound:
        bound.client_gone()
    await asyncio.sleep(1)
    assert bound.gone
