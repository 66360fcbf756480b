"""Ties what proxies tell each other near a limit to the counters (counting 6).

Never adds anything to a total: what others told stands beside the sums of the day and of its month.
"""

from datetime import date, timedelta

from domain.days import month_of
from proxy.limits.in_flight import NOTHING, Amounts, CounterKey, Heard, Seen, Telling, added
from proxy.limits.periods import CounterPeriods
from schemas.limits import LimitType, UsageLimitUnit

_DAYS_AROUND = (timedelta(-1), timedelta(0), timedelta(1))
"""Of which others may tell: requests of yesterday may be in flight, and another's clock may be ahead."""


class OtherProxies:
    """What the proxy `instance` is to tell the others, and what they told it."""

    def __init__(self, periods: CounterPeriods, instance: str) -> None:
        self._periods = periods
        self._instance = instance
        self._telling = Telling()
        self._heard = Heard()

    def note(self, key: CounterKey, type_: LimitType, unit: UsageLimitUnit, threshold: int) -> None:
        """Hear of a limit on a counter's day or month that an admission met, of which enough is used."""
        self._telling.note(key, type_, unit, threshold)

    def due(self, now_s: float) -> list[tuple[CounterKey, Amounts]]:
        """Return what other proxies are to be told now (`proxy.limits.in_flight`), and take it for told."""
        return self._telling.due(now_s, self._seen)

    def take(self, key: CounterKey, instance: str, told: Amounts, now_s: float) -> None:
        """Take what another proxy has of a counter. Of days that are not counted here nothing is kept."""
        if key.day >= self._periods.oldest and instance != self._instance:
            self._heard.take(key, instance, told, now_s)
            self._place(key)

    def expire(self, now_s: float) -> None:
        """Let go of what other proxies told too long ago."""
        for key in self._heard.expire(now_s):
            self._place(key)

    def _place(self, key: CounterKey) -> None:
        """Put what holds of a counter beside its sum, and beside its month's."""
        if key.day < self._periods.oldest:
            return
        told = self._heard.sum(key)
        self._periods.counter(key.group, key.slug, key.day).others = None if told == NOTHING else told
        month = self._periods.find(key.group, key.slug, key.day, UsageLimitUnit.MONTH)
        if month is not None:
            days = (key.day + offset for offset in _DAYS_AROUND)
            of_month = added(self._heard.sum(key._replace(day=day)) for day in days if _are_one_month(day, key.day))
            month.others = None if of_month == NOTHING else of_month

    def _seen(self, key: CounterKey) -> Seen:
        counters = {unit: self._periods.find(*key, unit) for unit in UsageLimitUnit}
        sums = {unit: NOTHING if counter is None else counter.sum for unit, counter in counters.items()}
        return Seen(sums, self._periods.of_day(key.day).uncounted(key.group, key.slug))


def _are_one_month(one: date, other: date) -> bool:
    return month_of(one) == month_of(other)
