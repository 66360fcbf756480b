"""`tollgate reconcile`: shows whether what was counted, delivered and served agrees (contract 4)."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from runtime import clock, settings
from tollgate import installation
from tollgate.cli import commands, progress
from tollgate.cli.commands import Where
from tollgate.installation import Installation
from tollgate.reconciliation import compare, runs, upstream_account
from tollgate.reconciliation.accounts import AccountLine, Report, TopicFigures
from tollgate.reconciliation.upstream_account import Comparison
from tollgate.reports import reconciliation as report_text

MAX_APART = 0.01
"""The default of --max-apart."""

_TOO_MUCH_APART = 3


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
        period = runs.period(place.settings, *days, today)
        run = compare.Reconciliation(runs.accounts(place, period, proxies, ignored), period)
        with progress.bar() as shown:
            shown.add_task("comparing, when metering and intake have passed the cut", total=None)
            report = run.run(upstream)
        names = runs.names(place)
    if as_json:
        click.echo(json.dumps(_as_json(report, most)))
    else:
        report_text.show(report, names, most, Console(highlight=False))
    sys.exit(1 if not report.agrees else _TOO_MUCH_APART if report_text.exceeds(report, most) else 0)


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
    absent = report_text.EXPIRED if topic else None
    return {
        "workspace_id": line.workspace_id,
        "day": str(line.day),
        "unpublished": line.unpublished._asdict(),
        "topic": absent if records is None else records._asdict(),
        "ledger": line.ledger._asdict(),
        "daily": line.daily._asdict(),
        "deliveries": report_text.EXPIRED
        if deliveries is None
        else {status.value: sums._asdict() for status, sums in deliveries.items()},
        "untaken": line.untaken._asdict(),
        "topic_difference": absent if records_difference is None else records_difference._asdict(),
        "daily_difference": line.daily_difference._asdict(),
        "delivery_difference": report_text.EXPIRED if difference is None else difference._asdict(),
    }


def _upstream_as_json(upstream: Comparison, max_apart: float) -> dict[str, Any]:
    lists = {
        kind: {"count": listing.count, "requests": [request._asdict() for request in listing.requests]}
        for kind in report_text.KINDS
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
