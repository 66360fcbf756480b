"""`tollgate reconcile`: shows whether what was counted, delivered and served agrees (contract 4)."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from control.store.workspaces import SqlWorkspaces
from runtime import clock, settings
from runtime.kafka.writer import Kafka
from runtime.settings import Settings
from tollgate import installation
from tollgate.cli import commands, progress, terminal
from tollgate.cli.commands import Where
from tollgate.installation import Installation
from tollgate.reconciliation import compare, upstream_account
from tollgate.reconciliation.accounts import AccountLine, Figures, Period, Report, TopicFigures
from tollgate.reconciliation.cluster import ClusterAccounts
from tollgate.reconciliation.compare import Accounts
from tollgate.reconciliation.embedded import EmbeddedAccounts
from tollgate.reconciliation.proxies import Proxies
from tollgate.reconciliation.topic import Topic
from tollgate.reconciliation.upstream_account import Comparison, Listing, MatchedRequest

MAX_APART = 0.01
"""The default of --max-apart."""

_TOO_MUCH_APART = 3
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
    "--proxy",
    "proxies",
    metavar="OPS_URL",
    multiple=True,
    help="A proxy's ops port, as http://10.0.0.1:8081, to ask for what it has not published; may be repeated.",
)
@click.option(
    "--ignore",
    "ignored",
    metavar="INSTANCE",
    multiple=True,
    help="A producer instance that no proxy needs to report; may be repeated.",
)
@click.option(
    "--upstream",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The upstream's own account, JSON Lines that reach up to now.",
)
@click.option(
    "--max-apart",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    help="Which part of the tokens may be estimated although the upstream's answers were complete.  [default: 0.01]",
)
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reconcile(
    *,
    from_day: str | None,
    to_day: str | None,
    proxies: tuple[str, ...],
    ignored: tuple[str, ...],
    upstream: Path | None,
    max_apart: float | None,
    where: Where,
    as_json: bool,
) -> None:
    """Compare spools, topic, ledger, daily usage and deliveries, and the upstream's account.

    Exits 1 on any difference, 3 where the only fault is that more than --max-apart is estimated. Works while the server
    runs; what comes meanwhile is no difference.
    """
    if max_apart is not None and upstream is None:
        raise _WrongUseError("--max-apart is for --upstream: without the account nothing is left apart")
    most = MAX_APART if max_apart is None else max_apart
    today = clock.steady()().date()
    days = _day("--from", from_day, today), _day("--to", to_day, today)
    if days[0] > days[1]:
        raise _WrongUseError(f"--from {days[0]} lies behind --to {days[1]}")
    with _opened(where, asks_proxies=bool(proxies or ignored)) as place:
        period = _period(place.settings, *days, today)
        run = compare.Reconciliation(_accounts(place, period, proxies, ignored), period)
        with progress.bar() as shown:
            shown.add_task("comparing, when metering and intake have passed the cut", total=None)
            report = run.run(upstream)
        names = {record.id: record.name for record in place.read(lambda connection: SqlWorkspaces(connection).every())}
    if as_json:
        click.echo(json.dumps(_as_json(report, most)))
    else:
        _show(report, names, most, Console(highlight=False))
    sys.exit(1 if not report.agrees else _TOO_MUCH_APART if _exceeds(report, most) else 0)


@contextmanager
def _opened(where: Where, *, asks_proxies: bool) -> Iterator[Installation]:
    try:
        loaded = commands.load(where)
        if (loaded.database_url is None) != (loaded.kafka_bootstrap is None):
            raise _WrongUseError("TOLLGATE_DATABASE_URL and TOLLGATE_KAFKA_BOOTSTRAP are set together or not at all")
        if loaded.kafka_bootstrap is None and asks_proxies:
            raise _WrongUseError(
                "--proxy and --ignore are for TOLLGATE_KAFKA_BOOTSTRAP: here the spools are on this disk"
            )
        with installation.opened(loaded) as place:
            yield place
    except (
        settings.SettingsError,
        installation.InstallationError,
        compare.ReconcileError,
        upstream_account.AccountError,
    ) as error:
        raise _WrongUseError(str(error)) from None


def _period(loaded: Settings, from_day: date, to_day: date, today: date) -> Period:
    if loaded.kafka_bootstrap is None:
        return Period(from_day, to_day, today)
    return Period(from_day, to_day, today, ledger_days=loaded.ledger_days)


def _accounts(place: Installation, period: Period, proxies: Sequence[str], ignored: Sequence[str]) -> Accounts:
    """Choose where the accounts come from."""
    if place.settings.kafka_bootstrap is None:
        return EmbeddedAccounts(place, period)
    return ClusterAccounts(place, period, Proxies(proxies), Topic(Kafka.of(place.settings)), ignored)


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


def _exceeds(report: Report, max_apart: float) -> bool:
    return report.upstream is not None and report.upstream.estimated_share > max_apart


def _show(report: Report, names: dict[str, str], max_apart: float, console: Console) -> None:
    period = report.period
    if period.expired_to is not None:
        console.print(f"{period.asked} to {period.expired_to}: expired")
    for line in report.lines:
        table = Table(title=Text(f"{names.get(line.workspace_id, line.workspace_id)}, {line.day} (UTC)"))
        table.add_column("account", min_width=_WIDTH)
        for heading in ("events", "input tokens", "output tokens"):
            table.add_column(heading, justify="right", overflow="fold")
        for account, cells in _rows(line, topic=report.topic is not None):
            wrong = account.startswith(_DIFFERENCE) and not set(cells) <= {"0", _EXPIRED}
            table.add_row(account, *cells, style="bold red" if wrong else None)
        console.print(table)
    for remark in _remarks(report):
        console.print(remark)
    if report.upstream is not None:
        _show_upstream(report.upstream, console)
    if not report.agrees:
        console.print("[bold red]There are differences.[/]")
    elif _exceeds(report, max_apart):
        console.print(f"[bold red]More than {max_apart:g} of the tokens are estimates of complete answers.[/]")
    else:
        console.print("[bold green]No difference.[/]")


def _rows(line: AccountLine, *, topic: bool) -> Iterator[tuple[str, list[str]]]:
    yield from _of("unpublished in spools", line.unpublished)
    if topic:
        yield from _of("topic", line.topic) if line.topic is not None else [("topic", [_EXPIRED])]
    yield from _of("ledger", line.ledger)
    yield from _of("daily usage", line.daily)
    if line.deliveries is None:
        yield "deliveries", [_EXPIRED]
    for status, sums in (line.deliveries or {}).items():
        yield status.value.replace("_", " "), _cells(sums)
    yield "not yet taken for delivery", _cells(line.untaken)
    if topic:
        name, difference = f"{_DIFFERENCE} topic", line.topic_difference
        yield from _of(name, difference) if difference is not None else [(name, [_EXPIRED])]
    yield from _of(f"{_DIFFERENCE} daily usage", line.daily_difference)
    delivered = line.delivery_difference
    yield f"{_DIFFERENCE} deliveries", [_EXPIRED] if delivered is None else _cells(delivered)


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
    for kind, words in _KINDS.items():
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
    for kind, words in _KINDS.items():
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


def _as_json(report: Report, max_apart: float) -> dict[str, Any]:
    upstream = report.upstream
    return {
        "from": str(report.period.asked),
        "to": str(report.period.last),
        "expired_to": None if report.period.expired_to is None else str(report.period.expired_to),
        "agrees": report.agrees,
        "served": report.served,
        "passed": report.passed,
        "waiting": report.waiting,
        "in_flight": report.in_flight,
        "days": [_line_as_json(line, topic=report.topic is not None) for line in report.lines],
        "unreadable": None if report.topic is None else _unreadable_as_json(report.topic),
        "gaps": [asdict(gap) for gap in report.gaps],
        "upstream": None if upstream is None else _upstream_as_json(upstream, max_apart),
    }


def _unreadable_as_json(topic: TopicFigures) -> dict[str, Any]:
    return {"count": topic.unreadable, "records": [record._asdict() for record in topic.named]}


def _line_as_json(line: AccountLine, *, topic: bool) -> dict[str, Any]:
    deliveries, difference = line.deliveries, line.delivery_difference
    records, records_difference = line.topic, line.topic_difference
    absent = _EXPIRED if topic else None
    return {
        "workspace_id": line.workspace_id,
        "day": str(line.day),
        "unpublished": line.unpublished._asdict(),
        "topic": absent if records is None else records._asdict(),
        "ledger": line.ledger._asdict(),
        "daily": line.daily._asdict(),
        "deliveries": _EXPIRED
        if deliveries is None
        else {status.value: sums._asdict() for status, sums in deliveries.items()},
        "untaken": line.untaken._asdict(),
        "topic_difference": absent if records_difference is None else records_difference._asdict(),
        "daily_difference": line.daily_difference._asdict(),
        "delivery_difference": _EXPIRED if difference is None else difference._asdict(),
    }


def _upstream_as_json(upstream: Comparison, max_apart: float) -> dict[str, Any]:
    lists = {
        kind: {"count": listing.count, "requests": [request._asdict() for request in listing.requests]}
        for kind in _KINDS
        for listing in [getattr(upstream, kind)]
    }
    return {
        "agreeing": upstream.agreeing,
        "later": upstream.later,
        **lists,
        "apart_sums": upstream.apart_sums._asdict(),
        "estimated": upstream.estimated._asdict(),
        "tokens": upstream.tokens,
        "estimated_share": upstream.estimated_share,
        "exceeds_max_apart": upstream.estimated_share > max_apart,
    }
