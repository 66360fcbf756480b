"""`tollgate reconcile`: shows whether what was counted, delivered and served agrees (spec section 4).

Never decides what a difference is: that is `tollgate.reconciliation`.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.store.workspaces import Workspaces
from runtime import clock, settings
from tollgate import workplace
from tollgate.reconciliation import compare, upstream_account
from tollgate.reconciliation.accounts import Figures, Line, Report
from tollgate.reconciliation.upstream_account import Comparison, Listing, Request
from tollgate.workplace import Workplace

_SHOWN = 20
_WIDTH = 26
_EXPIRED = "expired"
_DIFFERENCE = "difference:"
_KINDS = {
    "missing_in_ledger": "missing in the ledger",
    "missing_at_upstream": "missing at the upstream",
    "different_counts": "different counts",
    "apart": "apart: not complete, or estimated (no difference)",
}


class _WrongUseError(click.ClickException):
    """What was asked cannot be done at all; told apart from a difference by its exit code."""

    exit_code = 2


@click.command()
@click.option("--from", "from_day", metavar="DAY", help="The first UTC day, as 2026-01-31.  [default: today]")
@click.option("--to", "to_day", metavar="DAY", help="The last UTC day, inclusive.  [default: today]")
@click.option(
    "--upstream",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The upstream's own account, JSON Lines that reach up to now.",
)
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reconcile(
    *, from_day: str | None, to_day: str | None, upstream: Path | None, data: Path | None, as_json: bool
) -> None:
    """Compare spools, ledger, daily usage and deliveries, and the upstream's account. Exits 1 on any difference.

    Works while the server runs; events after the start of the command are left to the next run.
    """
    now = clock.steady()()
    days = _day("--from", from_day, now.date()), _day("--to", to_day, now.date())
    if days[0] > days[1]:
        raise _WrongUseError(f"--from {days[0]} lies behind --to {days[1]}")
    with _opened(data) as place:
        run = compare.Reconciliation(place, *days, now)
        with Console(stderr=True).status("comparing, when metering and intake have passed the cut"):
            report = run.run(upstream)
        names = {record.id: record.name for record in place.read(lambda connection: Workspaces(connection).every())}
    if as_json:
        click.echo(json.dumps(_as_json(report)))
    else:
        _show(report, names, Console(highlight=False))
    sys.exit(0 if report.agrees else 1)


@contextmanager
def _opened(data: Path | None) -> Iterator[Workplace]:
    try:
        loaded = settings.load(data_dir=data)
        with workplace.opened(loaded) as place:
            yield place
    except (
        settings.SettingsError,
        workplace.WorkplaceError,
        compare.ReconcileError,
        upstream_account.AccountError,
    ) as error:
        raise _WrongUseError(str(error)) from None


def _day(option: str, text: str | None, today: date) -> date:
    if text is None:
        return today
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise _WrongUseError(f"{option}: {text!r} is no day; write it as {today}")
    return day


def _show(report: Report, names: dict[str, str], console: Console) -> None:
    if report.expired_to is not None:
        console.print(f"{report.from_day} to {report.expired_to}: expired")
    for line in report.lines:
        table = Table(title=Text(f"{names.get(line.workspace_id, line.workspace_id)}, {line.day} (UTC)"))
        table.add_column("account", min_width=_WIDTH)
        for heading in ("events", "input tokens", "output tokens"):
            table.add_column(heading, justify="right", overflow="fold")
        for account, cells in _rows(line):
            wrong = account.startswith(_DIFFERENCE) and not set(cells) <= {"0", _EXPIRED}
            table.add_row(account, *cells, style="bold red" if wrong else None)
        console.print(table)
    for remark in _remarks(report):
        console.print(remark)
    if report.upstream is not None:
        _show_upstream(report.upstream, console)
    console.print("[bold green]No difference.[/]" if report.agrees else "[bold red]There are differences.[/]")


def _rows(line: Line) -> Iterator[tuple[str, list[str]]]:
    yield from _of("unpublished in spools", line.unpublished)
    yield from _of("ledger", line.ledger)
    yield from _of("daily usage", line.daily)
    if line.deliveries is None:
        yield "deliveries", [_EXPIRED]
    for status, sums in (line.deliveries or {}).items():
        yield status.value.replace("_", " "), _cells(sums)
    yield "not yet taken for delivery", _cells(line.untaken)
    yield from _of(f"{_DIFFERENCE} daily usage", line.daily_difference)
    difference = line.delivery_difference
    yield f"{_DIFFERENCE} deliveries", [_EXPIRED] if difference is None else _cells(difference)


def _of(account: str, figures: Figures) -> Iterator[tuple[str, list[str]]]:
    """Give an account's line, and one of its corrections where it has any."""
    yield account, _cells(figures[:3])
    if any(figures[3:]):
        yield f"{account}: corrections", _cells(figures[3:])


def _cells(figures: Iterable[int]) -> list[str]:
    return [f"{figure:,}" for figure in figures]


def _remarks(report: Report) -> Iterator[str]:
    if not report.lines:
        yield "No events on these days."
    if not report.served:
        yield f"No server runs on this data directory: {report.waiting} events still wait in the spool."
        yield f"{report.in_flight} requests were in flight when it ended; the next start bills them."
    elif not report.passed:
        yield (
            f"[bold red]{report.waiting} events still wait in the spool: metering or intake did not pass the cut "
            f"within {compare.WAIT_S:.0f} s[/]"
        )
    for gap in report.gaps:
        yield f"[bold red]gap: instance {gap.instance} lacks the sequences {gap.first} to {gap.last}[/]"
    if not report.gaps:
        yield "Gaps in the producers' sequences: 0"


def _show_upstream(upstream: Comparison, console: Console) -> None:
    table = Table(title="The upstream's account")
    table.add_column("requests")
    table.add_column("count", justify="right")
    table.add_row("agreeing", f"{upstream.agreeing:,}")
    for kind, words in _KINDS.items():
        table.add_row(words, f"{getattr(upstream, kind).count:,}")
    table.add_row("under way: left to the next run", f"{upstream.later:,}")
    console.print(table)
    for kind, words in _KINDS.items():
        listing: Listing = getattr(upstream, kind)
        for request in listing.requests[:_SHOWN]:
            console.print(f"  {words.partition(':')[0]}: {_told(request)}", soft_wrap=True, markup=False)
        if listing.count > _SHOWN:
            console.print(f"  and {listing.count - _SHOWN} more; --json lists {upstream_account.LISTED} of each kind")


def _told(request: Request) -> str:
    def side(name: str, counts: Iterable[int | None]) -> str:
        known = [count for count in counts if count is not None]
        return f"{name} {known[0]} in, {known[1]} out" if known else f"{name} none"

    ours = side("ledger", (request.input_tokens, request.output_tokens))
    theirs = side("upstream", (request.upstream_input_tokens, request.upstream_output_tokens))
    how = f" ({request.outcome}, {request.usage_source})" if request.outcome else ""
    return f"{request.day} request {request.request_id}{how}: {ours}; {theirs}"


def _as_json(report: Report) -> dict[str, Any]:
    upstream = report.upstream
    return {
        "from": str(report.from_day),
        "to": str(report.to_day),
        "expired_to": None if report.expired_to is None else str(report.expired_to),
        "agrees": report.agrees,
        "served": report.served,
        "passed": report.passed,
        "waiting": report.waiting,
        "in_flight": report.in_flight,
        "days": [_line_as_json(line) for line in report.lines],
        "gaps": [asdict(gap) for gap in report.gaps],
        "upstream": None if upstream is None else _upstream_as_json(upstream),
    }


def _line_as_json(line: Line) -> dict[str, Any]:
    deliveries, difference = line.deliveries, line.delivery_difference
    return {
        "workspace_id": line.workspace_id,
        "day": str(line.day),
        "unpublished": line.unpublished._asdict(),
        "ledger": line.ledger._asdict(),
        "daily": line.daily._asdict(),
        "deliveries": _EXPIRED
        if deliveries is None
        else {status.value: sums._asdict() for status, sums in deliveries.items()},
        "untaken": line.untaken._asdict(),
        "daily_difference": line.daily_difference._asdict(),
        "delivery_difference": _EXPIRED if difference is None else difference._asdict(),
    }


def _upstream_as_json(upstream: Comparison) -> dict[str, Any]:
    lists = {
        kind: {"count": listing.count, "requests": [request._asdict() for request in listing.requests]}
        for kind in _KINDS
        for listing in [getattr(upstream, kind)]
    }
    return {"agreeing": upstream.agreeing, "later": upstream.later, **lists}
