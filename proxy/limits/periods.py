"""The counters of the days and months that are counted now.

The sum over all slugs, and a month, is made when somebody first asks for it: who asks for none pays nothing.
"""

from collections.abc import Iterator, Mapping
from datetime import date

from domain.days import month_of
from proxy.limits.counters import DayCounter, Lane
from proxy.limits.in_flight import NOTHING, Amounts, added
from schemas.limits import ANY_SLUG, UsageLimitUnit


class CounterPeriod:
    """The counters of one day or month, by group and slug; under `*` the sum over all slugs of a group.

    That is kept from when it is first asked for. A group that nobody asks it of pays nothing for it.
    """

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, DayCounter]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def __iter__(self) -> Iterator[DayCounter]:
        """Go over the counters of slugs, without the sums over them."""
        return (counter for slugs in self._groups.values() for slug, counter in slugs.items() if slug != ANY_SLUG)

    def slugs(self, group: str) -> list[str]:
        """Return the slugs of which a group has a counter."""
        return [slug for slug in self._groups.get(group, ()) if slug != ANY_SLUG]

    def find(self, group: str, slug: str) -> DayCounter | None:
        """Return a counter that is there."""
        return self._groups.get(group, {}).get(slug)

    def uncounted(self, group: str, slug: str) -> Amounts:
        """Return what of a sum is this proxy's and in nothing that metering told."""
        slugs = self._groups.get(group, {})
        if slug == ANY_SLUG:  # what metering told is known by slug
            return added(counter.uncounted for one, counter in slugs.items() if one != ANY_SLUG)
        return slugs[slug].uncounted if slug in slugs else NOTHING

    def counter(self, group: str, slug: str) -> DayCounter:
        """Return a counter, made where there is none."""
        slugs = self._groups.get(group)
        if slugs is None:
            slugs = self._groups[group] = {}
        counter = slugs.get(slug)
        if counter is None:
            counter = DayCounter()
            if slug == ANY_SLUG:
                for each in slugs.values():
                    each.join(counter)
            else:
                counter.over_all = slugs.get(ANY_SLUG)
            slugs[slug] = counter
        return counter


_NO_COUNTERS = CounterPeriod()


class CounterPeriods:
    """Those of all days and months that a request may still be counted in; `wholes` is of each lane."""

    def __init__(self, wholes: Mapping[Lane, int]) -> None:
        self.oldest = date.min
        """Days before it are not counted any more."""
        self._wholes = wholes
        self._days: dict[date, CounterPeriod] = {}
        self._months: dict[date, CounterPeriod] = {}
        """By their first days."""

    def __len__(self) -> int:
        return sum(len(period) for period in (*self._days.values(), *self._months.values()))

    def __iter__(self) -> Iterator[DayCounter]:
        """Go over all counters of days, without the sums over slugs."""
        return (counter for period in self._days.values() for counter in period)

    def of_day(self, day: date) -> CounterPeriod:
        """Return those of a day; not to be added to."""
        return self._days.get(day, _NO_COUNTERS)

    def of_month(self, day: date) -> CounterPeriod:
        """Return those of the month that `day` lies in; not to be added to."""
        return self._months.get(month_of(day), _NO_COUNTERS)

    def find(self, group: str, slug: str, day: date, unit: UsageLimitUnit) -> DayCounter | None:
        """Return a counter of the day, or of its month, that is there."""
        period = self.of_day(day) if unit is UsageLimitUnit.DAY else self.of_month(day)
        return period.find(group, slug)

    def forget(self, before: date) -> None:
        """Drop what is over before `before`; a day of this month is kept while rows of it are not counted."""
        self.oldest = max(self.oldest, before)
        for day in [day for day in self._days if day < before]:
            if day < month_of(before) or not any(counter.pending for counter in self._days[day]):
                del self._days[day]
        for month in [month for month in self._months if month < month_of(before)]:
            del self._months[month]

    def counter(self, group: str, slug: str, day: date) -> DayCounter:
        """Return the counter of a day, made where there is none."""
        period = self._days.get(day)
        if period is None:
            period = self._days[day] = CounterPeriod()
        counter = period.find(group, slug)
        if counter is None:
            counter = period.counter(group, slug)
            months = self.of_month(day)
            if slug != ANY_SLUG and (months.find(group, slug) or months.find(group, ANY_SLUG)):
                counter.month = self.month(group, slug, day)
        return counter

    def month(self, group: str, slug: str, day: date) -> DayCounter:
        """Return the counter of the month that `day` lies in; where it is new, its days hand it what they hold."""
        first = month_of(day)
        period = self._months.get(first)
        if period is None:
            period = self._months[first] = CounterPeriod()
        month = period.find(group, slug)
        if month is not None:
            return month
        of_days = [counters for each, counters in self._days.items() if month_of(each) == first]
        if slug == ANY_SLUG:
            for each in {each for counters in of_days for each in counters.slugs(group)}:
                self.month(group, each, day)
            return period.counter(group, slug)
        month = period.counter(group, slug)
        for counters in of_days:
            counter = counters.find(group, slug)
            if counter is not None:
                counter.lie_in(month, self._wholes)
        return month
