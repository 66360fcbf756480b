"""What reconcile finds between the upstream's account and the ledger."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from schemas.usage import Outcome, Tokens, UsageSource
from tests.integration.tollgate.reconciliation.desk import TODAY, Desk, days_ago, draft, numbered, served
from tollgate import installation
from tollgate.reconciliation.upstream_account import AccountError, BothSides, Comparison, Listing


def compared(desk: Desk, *lines: dict[str, Any], **options: Any) -> Comparison:
    report = desk.reconcile(account=desk.account(*lines), **options)
    assert report.upstream is not None
    assert report.agrees == report.upstream.agrees
    return report.upstream


def named(listing: Listing) -> list[str]:
    assert listing.count == len(listing.requests)
    return [request.request_id for request in listing.requests]


async def test_the_same_requests_with_the_same_counts_agree(desk: Desk) -> None:
    await desk.pass_on(*numbered(3))
    found = compared(desk, *served(3, 1, 2))
    assert (found.agrees, found.agreeing, found.later, found.apart.count) == (True, 3, 0, 0)


async def test_each_difference_is_named(desk: Desk) -> None:
    await desk.pass_on(*numbered(4))
    lines = [*served(1), *served(2, output_tokens=6), *served(3, input_tokens=9), *served(9), *served(0) * 2]
    found = compared(desk, *lines)
    assert not found.agrees
    assert named(found.missing_at_upstream) == ["request-4"]
    assert named(found.missing_in_ledger) == ["request-0", "request-9"]
    assert named(found.different_counts) == ["request-2", "request-3"]
    assert found.agreeing == 1
    (first, _) = found.different_counts.requests
    assert (first.workspace_id, first.day, first.output_tokens, first.upstream_output_tokens) == (
        "ws",
        str(TODAY),
        5,
        6,
    )
    assert first.idempotency_key is not None


async def test_what_the_upstream_served_twice_for_one_event_differs(desk: Desk) -> None:
    await desk.pass_on(draft(1))
    found = compared(desk, *served(1, 1))
    assert named(found.different_counts) == ["request-1"]
    assert found.different_counts.requests[0].upstream_input_tokens == 20


async def test_what_ended_otherwise_or_is_estimated_is_apart_and_no_difference(desk: Desk) -> None:
    await desk.pass_on(
        draft(1, outcome=Outcome.GATEWAY_INTERRUPTED, usage_source=UsageSource.ESTIMATED),
        draft(2, outcome=Outcome.CLIENT_DISCONNECTED),
        draft(3, outcome=Outcome.UPSTREAM_ERROR),
        draft(4, usage_source=UsageSource.ESTIMATED),
    )
    found = compared(desk, *served(1, 2, output_tokens=1))
    assert (found.agrees, found.agreeing) == (True, 0)
    assert named(found.apart) == ["request-1", "request-2", "request-3", "request-4"]
    assert [request.upstream_output_tokens for request in found.apart.requests] == [1, 1, None, None]


async def test_what_is_apart_is_summed_up_and_estimates_of_complete_answers_have_their_share(desk: Desk) -> None:
    guessed = Tokens(input_tokens=10, output_tokens=54_515)
    await desk.pass_on(
        draft(1),
        draft(2, usage_source=UsageSource.ESTIMATED, tokens=guessed),
        draft(3, usage_source=UsageSource.ESTIMATED, outcome=Outcome.GATEWAY_INTERRUPTED),
        draft(4, usage_source=UsageSource.ESTIMATED, outcome=Outcome.CLIENT_DISCONNECTED),
        draft(5, outcome=Outcome.UPSTREAM_ERROR),
    )
    found = compared(desk, *served(1, 3), *served(2, output_tokens=200))
    assert found.apart_sums == BothSides(4, 40, 54_530, 20, 205)
    assert found.estimated == BothSides(1, 10, 54_515, 10, 200)
    assert found.tokens == 15 + 54_525 + 3 * 15
    assert found.estimated_share == pytest.approx(54_525 / found.tokens)


async def test_a_correction_takes_an_estimate_out_of_the_share(desk: Desk) -> None:
    event = draft(1, usage_source=UsageSource.ESTIMATED, tokens=Tokens(input_tokens=10, output_tokens=500))
    left = draft(2, usage_source=UsageSource.ESTIMATED, outcome=Outcome.CLIENT_DISCONNECTED)
    await desk.pass_on(event, left)
    assert compared(desk, *served(1)).estimated.requests == 1
    desk.correct(event.idempotency_key, 0, -495)
    found = compared(desk, *served(1))
    assert (found.estimated.requests, found.estimated_share, found.apart.count) == (0, 0.0, 2)


async def test_nothing_at_all_has_no_share(desk: Desk) -> None:
    assert compared(desk).estimated_share == 0.0


async def test_a_correction_that_brings_the_counts_together_settles_them(desk: Desk) -> None:
    events = draft(1), draft(2)
    await desk.pass_on(*events)
    for event in events:
        desk.correct(event.idempotency_key, -1, 0)
    found = compared(desk, *served(1, input_tokens=9), *served(2))
    assert (found.agrees, found.agreeing) == (True, 2), "what was equal without a correction stays so"


async def test_lines_pair_over_midnight_and_belong_to_the_day_of_admission(desk: Desk) -> None:
    yesterday = TODAY - timedelta(days=1)
    await desk.pass_on(draft(1, at=days_ago(1)))
    lines = served(1, completed_at="2026-03-10T00:00:01+00:00")
    assert compared(desk, *lines).agreeing == 0
    assert compared(desk, *lines, from_day=yesterday, to_day=yesterday).agreeing == 1
    lost = served(2, completed_at="2026-03-10T01:30:00+02:00")
    assert compared(desk, *lost).agrees, "it was completed the day before, in UTC"
    assert named(compared(desk, *lost, from_day=yesterday, to_day=yesterday).missing_in_ledger) == ["request-2"]


async def test_what_is_on_its_way_is_left_to_the_next_run(desk: Desk) -> None:
    await desk.pass_on(draft(1))
    desk.in_flight("request-2")
    found = compared(desk, *served(1, 2))
    assert (found.agrees, found.agreeing, found.later) == (True, 1, 1)


async def test_a_row_of_the_spool_is_paired_as_it_is(desk: Desk) -> None:
    await desk.pass_on(draft(1))
    await desk.put(draft(2), draft(3))
    found = compared(desk, *served(1, 2), *served(3, input_tokens=1))
    assert (found.agreeing, named(found.different_counts), found.later) == (2, ["request-3"], 0)


async def test_a_line_without_a_request_id_is_missing_in_the_ledger(desk: Desk) -> None:
    found = compared(desk, *served(1, request_id=None))
    assert named(found.missing_in_ledger) == ["none (line 1)"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        ('{"request_id": "a", "input_tokens": 1, "output_tokens": 1}', "completed_at"),
        ('{"request_id": "a", "input_tokens": -1, "output_tokens": 1, "completed_at": "2026-03-10T00:00:00Z"}', ">= 0"),
        (
            '{"request_id": "a", "input_tokens": 1, "output_tokens": 1, "completed_at": "2026-03-10T00:00:00"}',
            "timezone",
        ),
        ('{"request_id": "a", "input_tokens": 1e99, "output_tokens": 1, "completed_at": 1}', "line 2"),
    ],
)
async def test_a_line_that_cannot_be_read_is_named(desk: Desk, line: str, said: str) -> None:
    path = desk.account(*served(1))
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(AccountError, match=said) as caught:
        desk.reconcile(account=path)
    assert "line 2" in str(caught.value)


async def test_a_last_line_without_its_end_is_still_being_written(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    await desk.pass_on(draft(1))
    path = desk.account(*served(1))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"request_id": "request-2", "inp')
    report = desk.reconcile(account=path)
    assert report.agrees
    assert "line 2 has no end and cannot be read: left out, as still being written" in caplog.text


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda text: text.rstrip("\n"), id="no last newline"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(lambda text: "\ufeff" + text, id="BOM"),
        pytest.param(lambda text: "\n" + text.replace("\n", "\n \r\n\n"), id="blank lines"),
    ],
)
async def test_an_account_is_read_however_its_lines_end(desk: Desk, written: Callable[[str], str]) -> None:
    await desk.pass_on(*numbered(3))
    path = desk.account(*served(1, 2, 3))
    path.write_bytes(written(path.read_text(encoding="utf-8")).encode())
    report = desk.reconcile(account=path)
    assert report.upstream is not None
    assert (report.agrees, report.upstream.agreeing) == (True, 3)


async def test_an_account_that_is_not_there_is_one_error(desk: Desk) -> None:
    with pytest.raises(AccountError, match="No such file"):
        desk.reconcile(account=desk.place.folder / "nothing.jsonl")


async def test_what_the_ledger_holds_behind_the_cut_is_left_to_the_next_run(desk: Desk) -> None:
    await desk.pass_on(draft(1))
    await desk.put(draft(2))
    account = desk.account(*served(1, 2, 3, 4))
    loop = asyncio.get_running_loop()

    async def more_comes() -> None:
        await desk.pass_on(draft(3))
        await desk.put(draft(4))

    def wait(_: float) -> None:
        asyncio.run_coroutine_threadsafe(more_comes(), loop).result(10)

    with installation.locked(desk.place.folder):
        report = await asyncio.to_thread(desk.reconcile, account=account, pause=wait)
    assert report.agrees
    assert report.upstream is not None
    assert (report.upstream.agreeing, report.upstream.later) == (2, 2)
