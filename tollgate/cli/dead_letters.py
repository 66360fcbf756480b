"""`tollgate dead-letters`: the deliveries that were given up, and their way back (contract 2.5 and 5)."""

import functools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import click
from sqlalchemy import Connection

from control.flow import deliveries as flow
from control.flow import workspaces
from control.store import units
from control.store.workspaces import SqlWorkspaces
from schemas.base import rfc3339
from schemas.billing import Delivery, DeliveryStatus
from tollgate.cli import commands, progress, terminal
from tollgate.cli.commands import Where
from tollgate.cli.menu import Menu
from tollgate.installation import Installation
from webhooks.store import pages, redrive
from webhooks.store.pages import DeliveryPageStart, DeliveryQuery, Listed

_PAGE = 500
_MOMENT = click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print JSON; one object a line for a list."),
        click.option("--to", "until", type=_MOMENT, help="Given up before, UTC.  [default: now]"),
        click.option("--from", "since", type=_MOMENT, help="Given up at or after, UTC."),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), options, commands.located(command))


@click.group("dead-letters", cls=Menu)
def dead_letters() -> None:
    """Deliveries that were given up on."""


@dead_letters.command("list")
@click.option("--workspace", "workspace_name", help="Its name or id.  [default: all]")
@click.option("--not-due", is_flag=True, help="Those that were put aside because no URL was enabled instead.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Of each workspace, the newest.")
@_common
def list_(
    *,
    workspace_name: str | None,
    not_due: bool,
    limit: int,
    since: datetime | None,
    until: datetime | None,
    where: Where,
    as_json: bool,
) -> None:
    """Show dead letters with their reasons, those that were given up last first."""
    status = DeliveryStatus.NOT_DUE if not_due else DeliveryStatus.DEAD
    with commands.opened(where) as place:
        lines = (
            json.dumps(_shown(listed)) if as_json else _line(name, listed)
            for id_, name in _workspaces(place, workspace_name)
            for listed in _newest(place, DeliveryQuery(id_, status, _utc(since), _utc(until)), limit)
        )
        none = "No delivery was put aside as not due." if not_due else "No dead letters."
        commands.print_list(lines, none, as_json=as_json)


@dead_letters.command("redrive")
@click.option("--workspace", "workspace_name", required=True, help="Its name or id.")
@_common
def redrive_(
    *, workspace_name: str, since: datetime | None, until: datetime | None, where: Where, as_json: bool
) -> None:
    """Have dead letters, and what was put aside as not due, delivered again, at the bounded rate.

    Safe to repeat, and to interrupt: what is put back stays so.
    """
    with commands.opened(where) as place, progress.bar() as shown:
        ((workspace_id, _),) = _workspaces(place, workspace_name)
        task = shown.add_task("putting back", total=None)
        before, redriven = None, flow.plan(workspace_id, _utc(since), _utc(until), place.read(commands.now))
        while redriven != before:
            before = redriven
            redriven = place.write(functools.partial(_step, place=place, redriven=redriven))
            shown.update(task, completed=redriven.count)
    if as_json:
        click.echo(json.dumps({"workspace_id": workspace_id, "count": redriven.count}))
    else:
        per_s = place.settings.webhook_redrive_per_s
        click.echo(f"{redriven.count:,} deliveries of {workspace_name} are pending again, {per_s:g} a second")


def _step(connection: Connection, place: Installation, redriven: flow.Redrive) -> flow.Redrive:
    put_back = functools.partial(redrive.redrive, connection, per_s=place.settings.webhook_redrive_per_s)
    return flow.step(units.over(connection, commands.now(connection)), redriven, put_back)


def _workspaces(place: Installation, name: str | None) -> list[tuple[str, str]]:
    """Return ids and names. Raise NotFoundError."""

    def find(connection: Connection) -> list[tuple[str, str]]:
        stored = SqlWorkspaces(connection)
        found = stored.every() if name is None else [workspaces.get(stored, name)]
        return [(one.id, one.name) for one in found]

    return place.read(find)


def _newest(place: Installation, window: DeliveryQuery, limit: int) -> Iterator[Listed]:
    after: DeliveryPageStart | None = None
    left = limit
    while left:
        wanted = min(left, _PAGE)
        found = place.read(functools.partial(pages.page, window=window, after=after, limit=wanted))
        yield from found
        if len(found) < wanted:
            return
        left -= wanted
        after = pages.place_of(found[-1], window)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _shown(listed: Listed) -> dict[str, Any]:
    settled_at = None if listed.settled_at is None else rfc3339(listed.settled_at)
    shown = Delivery.model_validate(listed, from_attributes=True).model_dump(mode="json")
    return {"workspace_id": listed.workspace_id, **shown, "settled_at": settled_at}


def _line(workspace: str, listed: Listed) -> str:
    at = rfc3339(listed.settled_at or listed.created_at)
    reason = listed.reason or "no URL was set, or the webhook was disabled"
    said = terminal.safe(json.dumps(reason, ensure_ascii=False))
    return f"{at}  {workspace}  {listed.id}  {listed.event_count} event(s): {said}"
