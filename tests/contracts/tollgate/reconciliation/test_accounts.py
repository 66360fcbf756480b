"""What `Accounts` promises, of the embedded server's and of the cluster's."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Protocol

import pytest

from metering.store.events import Gap
from runtime.settings import Settings
from tests.integration.tollgate.reconciliation import cluster_desk
from tests.integration.tollgate.reconciliation import desk as desks
from tests.integration.tollgate.reconciliation.cluster_desk import ClusterDesk
from tests.integration.tollgate.reconciliation.desk import Desk
from tollgate.installation import Installation
from tollgate.reconciliation.accounts import AccountSums, Figures, Period
from tollgate.reconciliation.cluster import ClusterAccounts
from tollgate.reconciliation.compare import Accounts, View
from tollgate.reconciliation.embedded import EmbeddedAccounts
from tollgate.reconciliation.topic import Topic
from tollgate.reconciliation.upstream_account import Comparison, Pairing

TWO = Figures(2, 20, 10)


class Scene(Protocol):
    """Where events come from, one after the other, each once."""

    @property
    def accounts(self) -> Accounts:
        """Return what is tried."""

    @property
    def day(self) -> date:
        """Return the day of its events."""

    @property
    def instance(self) -> str:
        """Return their producer."""

    async def put(self, count: int) -> None:
        """Make events and bring them to where metering and intake read."""

    async def count(self) -> None:
        """Let metering take what there is."""

    async def take(self) -> None:
        """Let intake take what there is."""

    def execute(self, statement: str) -> None:
        """Damage something."""


class Embedded:
    def __init__(self, desk: Desk) -> None:
        self.accounts = EmbeddedAccounts(
            desk.place, Period(desks.TODAY, desks.TODAY, desks.TODAY), pause=lambda _: None
        )
        self.day, self.instance = desks.TODAY, desk.spool.instance
        self.count, self.take, self.execute = desk.count, desk.take, desk.execute
        self._desk = desk
        self._made = 0

    async def put(self, count: int) -> None:
        for _ in range(count):
            self._made += 1
            await self._desk.put(desks.draft(self._made))


class Clustered:
    def __init__(self, desk: ClusterDesk) -> None:
        self.day, self.instance = cluster_desk.TODAY, "a"
        period = Period(self.day, self.day, self.day)
        self.accounts = ClusterAccounts(
            desk.place, period, desk.reports, Topic(desk.kafka), late_s=0, pause=lambda _: None
        )
        self.count, self.take, self.execute = desk.count, desk.take, desk.execute
        self._desk = desk
        self._made = 0

    async def put(self, count: int) -> None:
        await self._desk.publish(cluster_desk.events(count, first=self._made + 1))
        self._made += count
        self._desk.reports.rows = [cluster_desk.row("a", self._made, self._made)]


@pytest.fixture(params=["embedded", "cluster"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    if request.param == "embedded":
        with desks.opened(tmp_path / "data") as desk:
            yield Embedded(desk)
        return
    kafka, postgres = request.getfixturevalue("kafka"), request.getfixturevalue("postgres")
    place = Installation(tmp_path, "the test's database", Settings(), postgres, bytes(32))
    async with cluster_desk.opened(kafka, place) as cluster:
        yield Clustered(cluster)


async def cut(scene: Scene) -> None:
    await asyncio.to_thread(scene.accounts.take_cut)


async def passed(scene: Scene) -> bool:
    return (await asyncio.to_thread(scene.accounts.progress)).passed


async def view(scene: Scene, pairing: Pairing | None = None) -> View:
    progress = await asyncio.to_thread(scene.accounts.progress)
    return await asyncio.to_thread(scene.accounts.view, pairing, progress)


async def test_without_events_every_account_is_empty(scene: Scene) -> None:
    await cut(scene)
    assert await passed(scene)
    found = await view(scene)
    assert not (found.ledger or found.daily or found.unpublished or found.untaken or found.gaps or found.waiting)


async def test_the_cut_is_passed_when_both_have_passed_it(scene: Scene) -> None:
    await scene.put(2)
    await cut(scene)
    assert not await passed(scene)
    await scene.count()
    assert not await passed(scene)
    await scene.put(1)
    await scene.take()
    assert await passed(scene), "what came behind the cut need not be passed"


async def test_what_is_passed_is_in_every_account(scene: Scene) -> None:
    await scene.put(2)
    await scene.count()
    await scene.take()
    await cut(scene)
    found = await view(scene)
    place = ("ws", scene.day)
    assert found.ledger == found.daily == {place: TWO}
    assert sum((sums.events for sums in found.deliveries[place].values()), 0) == 2
    assert not (found.unpublished or found.untaken or found.gaps or found.waiting)


async def test_what_one_of_the_two_lacks_is_known(scene: Scene) -> None:
    await scene.put(2)
    await scene.count()
    await cut(scene)
    found = await view(scene)
    place = ("ws", scene.day)
    assert (found.ledger[place], found.untaken[place], found.waiting) == (TWO, AccountSums(2, 20, 10), 2)
    assert not any(found.unpublished.values())


async def test_a_number_that_is_missing_is_a_gap(scene: Scene) -> None:
    await scene.put(3)
    await scene.count()
    await scene.take()
    scene.execute("DELETE FROM usage_event WHERE sequence = 2")
    await cut(scene)
    assert (await view(scene)).gaps == (Gap(scene.instance, 2, 2),)


async def test_a_served_request_that_comes_later_is_forgiven_and_a_lost_one_is_not(
    scene: Scene, tmp_path: Path
) -> None:
    await scene.put(2)
    await scene.count()
    await scene.take()
    await cut(scene)
    account = desks.write_account(tmp_path, desks.served(1, 2, 3, 9, completed_at=f"{scene.day}T00:00:00Z"))
    loop = asyncio.get_running_loop()

    async def one_more() -> None:
        await scene.put(1)
        await scene.count()

    def pair() -> Comparison:
        with Pairing(scene.day, scene.day) as pairing:
            scene.accounts.view(pairing, scene.accounts.progress())
            pairing.read(account)
            assert sorted(pairing.lacking(10)) == ["request-3", "request-9"]
            asyncio.run_coroutine_threadsafe(one_more(), loop).result(20)
            scene.accounts.forgive(pairing)
            assert pairing.lacking(10) == ["request-9"]
            return pairing.compare()

    found = await asyncio.to_thread(pair)
    assert (found.agreeing, found.later, found.missing_in_ledger.count) == (2, 1, 1)
