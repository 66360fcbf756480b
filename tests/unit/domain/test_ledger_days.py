from datetime import date, timedelta

import pytest

from domain import ledger_days
from domain.ledger_days import Days

TODAY = date(2025, 3, 1)


def ago(count: int) -> date:
    return TODAY - timedelta(days=count)


def test_a_fresh_ledger_begins_with_all_that_may_still_come() -> None:
    made = ledger_days.missing(TODAY, ledger_days.NONE)
    assert made == Days(ago(99), ago(-7))
    assert len(list(made.each())) == ledger_days.LATE_DAYS + ledger_days.AHEAD_DAYS


def test_later_only_what_lies_behind_the_last_is_made() -> None:
    assert ledger_days.missing(TODAY, Days(ago(3), ago(-6))) == Days(ago(-7), ago(-7))
    assert list(ledger_days.missing(TODAY, Days(ago(3), ago(-7))).each()) == []
    assert list(ledger_days.missing(TODAY, Days(ago(3), ago(-20))).each()) == [], (
        "the clock was ahead; no hole, nothing twice"
    )
    after_a_long_stop = ledger_days.missing(TODAY, Days(ago(700), ago(300)))
    assert after_a_long_stop == Days(ago(299), ago(-7)), "without a hole"


def test_what_is_kept_is_a_number_of_days_with_today() -> None:
    existing = Days(ago(105), ago(-7))
    assert ledger_days.expired(TODAY, 100, existing) == Days(ago(105), ago(100))
    assert list(ledger_days.expired(TODAY, 106, existing).each()) == []
    assert ledger_days.expired(TODAY, 100, Days(ago(400), ago(300))) == Days(ago(400), ago(300))


def test_a_day_that_may_still_get_an_event_is_never_dropped() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        ledger_days.expired(TODAY, 99, Days(ago(105), ago(-7)))


def test_no_day_of_an_empty_ledger_is_dropped_or_open() -> None:
    assert list(ledger_days.expired(TODAY, 100, ledger_days.NONE).each()) == []
    assert not ledger_days.NONE.holds(TODAY)
    assert ledger_days.EVERY.holds(TODAY)


def test_both_ends_are_open_and_the_refusal_names_the_nearer_one() -> None:
    open_ = Days(ago(2), ago(-1))
    assert [open_.holds(ago(count)) for count in (3, 2, -1, -2)] == [False, True, True, False]
    assert open_.refusal(ago(3)) == "its day 2025-02-26 is no longer kept: the ledger's first is 2025-02-27"
    assert open_.refusal(ago(-2)) == "its day 2025-03-03 is too far ahead: the ledger's last is 2025-03-02"
