"""When an alert is kept, through metering's whole story (contract 2.5, counting 5)."""

from collections.abc import Sequence

import pytest

from domain.limit_tree import Threshold
from metering import flow
from metering.core.alerts import Alert
from metering.core.sums import Counter, LimitTotal
from metering.thresholds import GroupThresholds
from schemas.config import ConfigChange, ConfigKind, WebhookRecord
from schemas.limits import ANY_SLUG, LimitType, UsageLimitUnit
from tests.unit.metering.factories import NOON, SLUG, HandClock, batch, change, event, group
from tests.unit.metering.fakes import DictLedger, DictThresholds, ListPublisher

TEN = Threshold(LimitType.REQUEST, 10)


class ListedThresholds(DictThresholds):
    """Limits of the group `g`, by slug."""

    def __init__(self, listed: dict[str, Threshold]) -> None:
        super().__init__()
        self._listed = listed

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        return (self._listed[model_slug],) if model_slug in self._listed else ()

    def is_monthly(self, group_id: str, model_slug: str) -> bool:
        return any(limit.unit is UsageLimitUnit.MONTH for limit in self._listed.values())


class Scene:
    """Metering over a ledger, with alerts at 50 % and 100 % of the limits of the group `g`."""

    def __init__(self, limit: Threshold, slug: str = SLUG) -> None:
        self.ledger = RecordingLedger()
        self.thresholds = ListedThresholds({slug: limit})
        self.thresholds.shares = (50, 100)
        self.sink = ListPublisher()
        self.metering = flow.Metering(self.ledger, self.sink, self.thresholds, HandClock())
        self.sequence = 0

    async def use(self, requests: int, *, lane: str = "a", slug: str = SLUG) -> flow.CountedBatch:
        """Count requests of `g`; what they name is still to be told."""
        first = self.sequence + 1
        self.sequence += requests
        some = [event(first + number, group_id="g", model_slug=slug) for number in range(requests)]
        at = await self.ledger.position(lane, 0)
        return await self.metering.count(batch(some, 1 if at is None else at, topic=lane))

    def kept(self) -> list[tuple[int, str, UsageLimitUnit, int]]:
        return [(one.share, one.model_slug, one.unit, one.used) for one in self.ledger.alerts.values()]


class RecordingLedger(DictLedger):
    def __init__(self) -> None:
        super().__init__(HandClock())
        self.asked: list[list[Alert]] = []
        self.failure: Exception | None = None

    async def keep_alerts(self, found: Sequence[Alert]) -> None:
        if self.failure is not None:
            raise self.failure
        self.asked.append(list(found))
        await super().keep_alerts(found)


async def test_the_first_time_that_a_share_is_reached_and_never_again() -> None:
    scene = Scene(TEN)
    for requests in (4, 1, 3, 2, 5):
        await scene.metering.publish([await scene.use(requests)])
    assert scene.kept() == [(50, SLUG, UsageLimitUnit.DAY, 5), (100, SLUG, UsageLimitUnit.DAY, 10)]
    assert len(scene.ledger.asked) == 2, "what is known costs no transaction"


async def test_two_lanes_at_45_percent_that_each_add_10_percent_at_once_miss_nothing() -> None:
    scene = Scene(Threshold(LimitType.REQUEST, 20))
    for lane in ("a", "b"):
        await scene.metering.publish([await scene.use(9, lane=lane)])
    assert [share for share, *_ in scene.kept()] == [50]
    last = [await scene.use(2, lane=lane) for lane in ("a", "b")]  # both commit before either tells
    await scene.metering.publish([last[0]])
    await scene.metering.publish([last[1]])
    assert [share for share, *_ in scene.kept()] == [50, 100]


async def test_a_month_is_judged_by_the_sum_of_its_days() -> None:
    scene = Scene(Threshold(LimitType.REQUEST, 4, UsageLimitUnit.MONTH))
    await scene.metering.publish([await scene.use(2)])
    assert scene.kept() == [(50, SLUG, UsageLimitUnit.MONTH, 2)]


@pytest.mark.parametrize("unit", UsageLimitUnit)
async def test_the_sum_over_all_slugs_is_judged_where_a_limit_is_compared_with_it(unit: UsageLimitUnit) -> None:
    scene = Scene(Threshold(LimitType.REQUEST, 6, unit), ANY_SLUG)
    await scene.metering.publish([await scene.use(2)])
    assert scene.kept() == []
    await scene.metering.publish([await scene.use(1, slug="org/other", lane="b")])
    assert scene.kept() == [(50, ANY_SLUG, unit, 3)]


async def test_nobody_is_told_who_did_not_ask() -> None:
    scene = Scene(TEN)
    scene.thresholds.shares = ()
    await scene.metering.publish([await scene.use(10)])
    assert scene.ledger.asked == []


async def test_nothing_is_told_before_its_alerts_are_kept_so_a_failure_brings_them_again() -> None:
    scene = Scene(TEN)
    counted = await scene.use(10)
    scene.ledger.failure = ConnectionError("the database is away")
    with pytest.raises(ConnectionError):
        await scene.metering.publish([counted])
    assert scene.sink.parts == []
    scene.ledger.failure = None
    await scene.metering.publish([counted])
    assert [share for share, *_ in scene.kept()] == [50, 100]


def test_who_asked_is_known_from_the_configuration() -> None:
    def webhook(version: int, *shares: int) -> ConfigChange:
        record = WebhookRecord(workspace_id="workspace-a", url=None, enabled=True, secrets=(), usage_alerts=shares)
        return ConfigChange(version=version, kind=ConfigKind.WEBHOOK, id="workspace-a", record=record)

    thresholds = GroupThresholds()
    thresholds.apply(webhook(2, 80))
    assert thresholds.alerted("g") is None, "a group that is not known"
    thresholds.apply(change(3, "g", group("g")))
    found = thresholds.alerted("g")
    assert found == ("workspace-a", "customer of g", (80,))
    thresholds.apply(webhook(1, 10))
    assert thresholds.alerted("g") == found, "an older version"
    thresholds.apply(webhook(4))
    assert thresholds.alerted("g") is None


async def test_sums_of_days_are_judged_at_a_start_too() -> None:
    scene = Scene(TEN)
    await scene.metering.judge([LimitTotal(Counter(NOON.date(), "g", SLUG), 5, 0, 1)])
    assert [share for share, *_ in scene.kept()] == [50]
