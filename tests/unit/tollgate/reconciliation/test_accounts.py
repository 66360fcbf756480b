"""What the accounts of a reconciliation must satisfy."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from domain import ledger_days
from metering.store.events import Gap
from tollgate.reconciliation.accounts import AccountLine, AccountSums, Figures, Period, Report, TopicFigures
from tollgate.reconciliation.upstream_account import Comparison, Listing, MatchedRequest
from webhooks.core.deliveries import Status

DAY = date(2026, 3, 10)
LEDGER = Figures(4, 40, 20, 1, -3, 2)
NOTHING: dict[Status, AccountSums] = dict.fromkeys(Status, AccountSums())
LINE = AccountLine(
    workspace_id="ws",
    day=DAY,
    unpublished=Figures(1, 10, 5),
    ledger=LEDGER,
    daily=LEDGER,
    deliveries=NOTHING | {Status.DELIVERED: AccountSums(3, 27, 17), Status.DEAD: AccountSums(2, 10, 5)},
    untaken=AccountSums(1, 10, 5),
)
REPORT = Report(
    Period(DAY, DAY, DAY), served=True, passed=True, waiting=0, in_flight=0, lines=(LINE,), gaps=(), upstream=None
)
NONE = Listing(0, ())
EQUAL = Comparison(
    agreeing=1, later=1, missing_in_ledger=NONE, missing_at_upstream=NONE, different_counts=NONE, apart=NONE
)
ONE = Listing(1, (MatchedRequest("request", None, None, "2026-03-10", None, None, None, None, 10, 5),))


def test_corrections_are_in_the_sums_and_apart_in_the_figures() -> None:
    assert LEDGER.sums == AccountSums(5, 37, 22)
    assert LEDGER.plus(LEDGER, -1) == Figures()


def test_a_line_agrees_where_every_event_is_on_both_sides() -> None:
    assert LINE.agrees
    assert LINE.delivery_difference == AccountSums()


@pytest.mark.parametrize(
    "changed",
    [
        replace(LINE, daily=LEDGER._replace(output_tokens=21)),
        replace(LINE, topic=LEDGER._replace(requests=3)),
        replace(LINE, daily=LEDGER._replace(corrections=0)),
        replace(LINE, unpublished=Figures()),
        replace(LINE, untaken=AccountSums(1, 10, 6)),
        replace(LINE, deliveries=NOTHING),
    ],
)
def test_a_line_differs_where_one_account_does(changed: AccountLine) -> None:
    assert not changed.agrees
    assert not replace(REPORT, lines=(LINE, changed)).agrees


def test_a_topic_that_holds_the_same_agrees_and_one_past_its_retention_is_not_compared() -> None:
    assert LINE.topic_difference is None
    line = replace(LINE, topic=LEDGER._replace(corrected_input_tokens=-4))
    assert line.topic_difference == Figures(0, 0, 0, 0, -1, 0)
    assert replace(LINE, topic=LEDGER).agrees


PLACE = ("ws", DAY)
MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("held", "gone_before", "first_day", "compared"),
    [
        (LEDGER, None, DAY, True),
        (LEDGER, None, DAY + timedelta(days=1), False),
        (Figures(), None, DAY, True),
        (Figures(), MIDNIGHT, DAY, True),
        (Figures(), MIDNIGHT + SECOND, DAY, False),
        (LEDGER._replace(corrections=0), MIDNIGHT + SECOND, DAY, False),
        (LEDGER, MIDNIGHT + SECOND, DAY, True),
        (LEDGER._replace(requests=5), MIDNIGHT + SECOND, DAY, True),
        (LEDGER._replace(input_tokens=1), MIDNIGHT + SECOND, DAY, True),
    ],
)
def test_a_day_is_compared_unless_records_that_it_lacks_may_be_past_their_retention(
    held: Figures, gone_before: datetime | None, first_day: date, *, compared: bool
) -> None:
    topic = TopicFigures({PLACE: held} if any(held) else {}, gone_before)
    assert topic.of(PLACE, LEDGER, first_day) == (held if compared else None)


def test_a_period_begins_where_the_ledger_does() -> None:
    today = DAY
    short = Period(today - timedelta(days=10), today, today)
    assert (short.first, short.expired_to) == (short.asked, None)
    long = Period(today - timedelta(days=120), today, today)
    assert (long.first, long.expired_to) == (today - timedelta(days=99), today - timedelta(days=100))
    past = Period(today - timedelta(days=300), today - timedelta(days=200), today)
    assert past.expired_to == past.last
    kept = Period(today - timedelta(days=120), today, today, ledger_days=399)
    assert (kept.first, kept.expired_to) == (kept.asked, None)
    assert long.kept_from == ledger_days.expired(today, 100, ledger_days.EVERY).last + timedelta(days=1), "as it drops"


def test_deliveries_past_their_retention_are_not_compared() -> None:
    line = replace(LINE, deliveries=None)
    assert line.delivery_difference is None
    assert line.agrees


@pytest.mark.parametrize(
    ("report", "agrees"),
    [
        (REPORT, True),
        (replace(REPORT, lines=()), True),
        (replace(REPORT, gaps=(Gap("a", 1, 1),)), False),
        (replace(REPORT, passed=False), False),
        (replace(REPORT, passed=False, served=False), True),
        (replace(REPORT, upstream=EQUAL), True),
        (replace(REPORT, upstream=replace(EQUAL, apart=ONE)), True),
        (replace(REPORT, upstream=replace(EQUAL, missing_in_ledger=ONE)), False),
        (replace(REPORT, upstream=replace(EQUAL, missing_at_upstream=ONE)), False),
        (replace(REPORT, upstream=replace(EQUAL, different_counts=ONE)), False),
    ],
)
def test_a_report_agrees_where_nothing_differs_and_a_running_server_has_kept_up(report: Report, agrees: bool) -> None:
    assert report.agrees is agrees
