"""Which shares of a limit a sum has reached (contract 2.5)."""

from datetime import date

import pytest

from domain.limit_tree import Threshold
from metering.core import alerts
from metering.core.alerts import AlertedGroup, PeriodSum
from metering.core.sums import Counter, LimitTotal
from schemas.limits import LimitType, UsageLimitUnit

DAY, MONTH = UsageLimitUnit.DAY, UsageLimitUnit.MONTH
GROUP = AlertedGroup("ws", "acme", (50, 80, 100))


def shares(requests: int, limit: Threshold, unit: UsageLimitUnit = DAY, tokens: int = 0) -> list[int]:
    total = LimitTotal(Counter(date(2025, 3, 14), "g", "lab/model"), requests, tokens, 1, tokens, 0)
    return [alert.share for alert in alerts.reached(GROUP, PeriodSum(total, unit), [limit])]


@pytest.mark.parametrize(
    ("requests", "found"),
    [(0, []), (4, []), (5, [50]), (7, [50]), (8, [50, 80]), (10, [50, 80, 100]), (99, [50, 80, 100])],
)
def test_a_share_is_reached_at_exactly_so_many_percent(requests: int, found: list[int]) -> None:
    assert shares(requests, Threshold(LimitType.REQUEST, 10)) == found


def test_no_share_of_an_odd_threshold_is_reached_early() -> None:
    assert shares(1, Threshold(LimitType.REQUEST, 3)) == []
    assert shares(2, Threshold(LimitType.REQUEST, 3)) == [50]


def test_a_limit_is_compared_with_its_own_period_and_type_alone() -> None:
    assert shares(10, Threshold(LimitType.REQUEST, 10, MONTH)) == []
    assert shares(10, Threshold(LimitType.REQUEST, 10), MONTH) == []
    assert shares(1, Threshold(LimitType.TOKEN, 10, MONTH), MONTH, tokens=8) == [50, 80]
    assert shares(0, Threshold(LimitType.REQUEST, 0)) == []


def test_an_alert_says_what_it_is_of_and_has_one_id_for_good() -> None:
    def found(day: int, threshold: int, unit: UsageLimitUnit = DAY) -> alerts.Alert:
        total = LimitTotal(Counter(date(2025, 3, day), "g", "*"), 80, 0, 1)
        (alert, *_) = alerts.reached(GROUP, PeriodSum(total, unit), [Threshold(LimitType.REQUEST, threshold, unit)])
        return alert

    alert = found(14, 100)
    assert alert[1:] == ("ws", "g", "acme", "*", LimitType.REQUEST, DAY, 100, 50, date(2025, 3, 14), 80)
    assert found(14, 100).id == alert.id
    assert found(14, 100, MONTH).day == date(2025, 3, 1)
    assert len({alert.id, found(15, 100).id, found(14, 99).id, found(14, 100, MONTH).id}) == 4
    assert found(14, 100, MONTH).id == found(15, 100, MONTH).id
