"""`tollgate events`: the ledger as it grows (contract 6).

Never misses an event and never shows one twice: it follows the ledger's own clock, behind the hold-back.
"""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import click
from sqlalchemy import Connection

from control.flow import workspaces
from control.store.workspaces import SqlWorkspaces
from metering.store import ledger_clock, pages
from metering.store.pages import EventQuery, LedgerEntry, Order, PageStart
from runtime import clock
from runtime.database import engines
from schemas.base import rfc3339
from tollgate.cli import commands, terminal
from tollgate.cli.commands import Where
from tollgate.cli.menu import Menu
from tollgate.installation import Installation

_POLL_S = 1.0
_PAGE = 1000


@click.group(cls=Menu)
def events() -> None:
    """Look at the ledger's events."""


@events.command()
@click.option("--workspace", "workspace_name", required=True, help="Its name or id.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]),
    help="Recorded at or after, UTC.  [default: now]",
)
@click.option("--once", is_flag=True, help="End when everything there is has been shown.")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def tail(*, workspace_name: str, since: datetime | None, once: bool, where: Where, as_json: bool) -> None:
    """Print a lab's events in the order they were recorded, and go on until Ctrl-C.

    The newest are held back for TOLLGATE_EVENTS_HOLD_BACK_S seconds, so that none is missed.
    """
    with commands.opened(where) as place:
        workspace_id = place.read(lambda view: workspaces.get(SqlWorkspaces(view), workspace_name).id)
        begun = clock.steady()
        start = since.replace(tzinfo=UTC) if since else place.read(partial(_ledger_now, own=begun))
        if not once and not as_json:
            held_s = place.settings.events_hold_back_s
            click.echo(f"Events recorded from {rfc3339(start)} on, {held_s:g} s after each; Ctrl-C ends it.", err=True)
        entries = _follow(place, workspace_id, start, once=once)
        lines = (_as_json(entry) if as_json else _as_line(entry) for entry in entries)
        commands.print_list(lines, "No events so far.", as_json=as_json)


def _follow(place: Installation, workspace_id: str, start: datetime, *, once: bool) -> Iterator[LedgerEntry]:
    now = clock.steady()
    held = timedelta(seconds=place.settings.events_hold_back_s)
    after = PageStart(start, "")

    def read(connection: Connection) -> list[LedgerEntry]:
        moment = _ledger_now(connection, now)
        return pages.page(connection, EventQuery(workspace_id, Order.RECORDED, after, moment), moment - held, _PAGE)

    while True:
        found = place.read(read)
        for entry in found:
            yield entry
            after = pages.place_of(entry, Order.RECORDED)
        if len(found) == _PAGE:
            continue
        if once:
            return
        time.sleep(_POLL_S)


def _ledger_now(connection: Connection, own: clock.Clock) -> datetime:
    return ledger_clock.now(connection, engines.now(connection, own))


def _as_json(entry: LedgerEntry) -> str:
    return json.dumps({**entry.event.model_dump(mode="json"), "recordedAt": rfc3339(entry.recorded_at)})


def _as_line(entry: LedgerEntry) -> str:
    event = entry.event
    tokens = f"{event.tokens.input_tokens:>8,} in {event.tokens.output_tokens:>8,} out"
    what = event.outcome.value if event.corrects is None else f"correction of {event.corrects}"
    return (
        f"{rfc3339(event.timestamp)}  {terminal.safe(event.external_entity_id)}  {event.model_slug}  {tokens}  {what}"
    )
