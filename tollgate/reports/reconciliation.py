"""What a reconciliation says to people: a table for each workspace and day, remarks, and whether all agrees."""

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tollgate.cli import terminal
from tollgate.reconciliation import compare, upstream_account
from tollgate.reconciliation.accounts import AccountLine, Figures, Report
from tollgate.reconciliation.upstream_account import Comparison, Listing, MatchedRequest

_SHOWN = 20
_WIDTH = 26
EXPIRED = "expired"
_DIFFERENCE = "difference:"
KINDS = {
    "missing_in_ledger": "missing in the ledger",
    "missing_at_upstream": "missing at the upstream",
    "different_counts": "different counts",
    "apart": "apart: not complete, or estimated (no difference)",
}


def exceeds(report: Report, max_apart: float) -> bool:
    """Tell whether more than this part of the tokens is estimated although the upstream's answers were complete."""
    return report.upstream is not None and report.upstream.estimated_share > max_apart


def show(report: Report, names: Mapping[str, str], max_apart: float, console: Console) -> None:
    """Print a report; `names` are the workspaces' by id, `max_apart` is the option of the command."""
    period = report.period
    if period.expired_to is not None:
        console.print(f"{period.asked} to {period.expired_to}: expired")
    for line in report.lines:
        table = Table(title=Text(f"{names.get(line.workspace_id, line.workspace_id)}, {line.day} (UTC)"))
        table.add_column("account", min_width=_WIDTH)
        for heading in ("events", "input tokens", "output tokens"):
            table.add_column(heading, justify="right", overflow="fold")
        for account, cells in _rows(line, topic=report.topic is not None):
            wrong = account.startswith(_DIFFERENCE) and not set(cells) <= {"0", EXPIRED}
            table.add_row(account, *cells, style="bold red" if wrong else None)
        console.print(table)
    for remark in _remarks(report):
        console.print(remark)
    if report.upstream is not None:
        _show_upstream(report.upstream, console)
    if not report.agrees:
        console.print("[bold red]There are differences.[/]")
    elif exceeds(report, max_apart):
        console.print(f"[bold red]More than {max_apart:g} of the tokens are estimates of complete answers.[/]")
    else:
        console.print("[bold green]No difference.[/]")


def _rows(line: AccountLine, *, topic: bool) -> Iterator[tuple[str, list[str]]]:
    yield from _of("unpublished in spools", line.unpublished)
    if topic:
        yield from _of("topic", line.topic) if line.topic is not None else [("topic", [EXPIRED])]
    yield from _of("ledger", line.ledger)
    yield from _of("daily usage", line.daily)
    if line.deliveries is None:
        yield "deliveries", [EXPIRED]
    for status, sums in (line.deliveries or {}).items():
        yield status.value.replace("_", " "), _cells(sums)
    yield "not yet taken for delivery", _cells(line.untaken)
    if topic:
        name, difference = f"{_DIFFERENCE} topic", line.topic_difference
        yield from _of(name, difference) if difference is not None else [(name, [EXPIRED])]
    yield from _of(f"{_DIFFERENCE} daily usage", line.daily_difference)
    delivered = line.delivery_difference
    yield f"{_DIFFERENCE} deliveries", [EXPIRED] if delivered is None else _cells(delivered)


def _of(account: str, figures: Figures) -> Iterator[tuple[str, list[str]]]:
    """Return an account's line, and one of its corrections where it has any."""
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
            f"[bold red]{report.waiting} events still wait: metering or intake did not pass the cut "
            f"within {compare.WAIT_S:.0f} s[/]"
        )
    for gap in report.gaps:
        yield f"[bold red]gap: instance {gap.instance} lacks the sequences {gap.first} to {gap.last}[/]"
    if not report.gaps:
        yield "Gaps in the producers' sequences: 0"
    if report.topic is not None and report.topic.unreadable:
        yield f"{report.topic.unreadable:,} unreadable records in the topic; `tollgate unreadable list` shows them"
        for record in report.topic.named[:_SHOWN]:
            yield escape(f"  partition {record.partition}, offset {record.offset}: {terminal.safe(record.reason)}")


def _show_upstream(upstream: Comparison, console: Console) -> None:
    table = Table(title="The upstream's account")
    table.add_column("requests")
    table.add_column("count", justify="right")
    table.add_row("agreeing", f"{upstream.agreeing:,}")
    for kind, words in KINDS.items():
        table.add_row(words, f"{getattr(upstream, kind).count:,}")
    table.add_row("under way: left to the next run", f"{upstream.later:,}")
    console.print(table)
    for words, sums in (("apart", upstream.apart_sums), ("estimated of complete answers", upstream.estimated)):
        console.print(
            f"{words}: {sums.input_tokens:,} in, {sums.output_tokens:,} out in the ledger; "
            f"{sums.upstream_input_tokens:,} in, {sums.upstream_output_tokens:,} out at the upstream",
            soft_wrap=True,
        )
    console.print(f"  the latter are {upstream.estimated_share:.2%} of {upstream.tokens:,} tokens")
    for kind, words in KINDS.items():
        listing: Listing = getattr(upstream, kind)
        for request in listing.requests[:_SHOWN]:
            console.print(f"  {words.partition(':')[0]}: {_told(request)}", soft_wrap=True, markup=False)
        if listing.count > _SHOWN:
            console.print(f"  and {listing.count - _SHOWN} more; --json lists {upstream_account.LISTED} of each kind")


def _told(request: MatchedRequest) -> str:
    def side(name: str, counts: Iterable[int | None]) -> str:
        known = [count for count in counts if count is not None]
        return f"{name} {known[0]} in, {known[1]} out" if known else f"{name} none"

    ours = side("ledger", (request.input_tokens, request.output_tokens))
    theirs = side("upstream", (request.upstream_input_tokens, request.upstream_output_tokens))
    how = f" ({request.outcome}, {request.usage_source})" if request.outcome else ""
    return f"{request.day} request {terminal.safe(request.request_id)}{how}: {ours}; {theirs}"
