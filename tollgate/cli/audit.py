"""`tollgate audit`: who changed what, when, and from what to what (contract 6)."""

import json
from typing import Any

import click
from sqlalchemy import Connection

from control.core.records import AuditEntry
from control.flow import workspaces
from control.store import audit as store
from control.store.workspaces import SqlWorkspaces
from schemas import base
from tollgate.cli import commands
from tollgate.cli.commands import Where


@click.command()
@click.option("--workspace", "workspace_name", help="Only what concerns this workspace (its name or id).")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def audit(*, workspace_name: str | None, limit: int, where: Where, as_json: bool) -> None:
    """Show the newest changes, oldest first."""

    def find(connection: Connection) -> list[AuditEntry]:
        named = workspaces.get(SqlWorkspaces(connection), workspace_name).id if workspace_name is not None else None
        return list(store.newest(connection, named, limit))

    with commands.opened(where) as place:
        entries = place.read(find)
    lines = (json.dumps(_shown(entry)) if as_json else _line(entry) for entry in entries)
    commands.print_list(lines, "No changes.", as_json=as_json)


def _shown(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": base.rfc3339(entry.at),
        "workspace_id": entry.workspace_id,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "before": entry.before,
        "after": entry.after,
    }


def _line(entry: AuditEntry) -> str:
    head = f"{base.rfc3339(entry.at)}  {entry.actor:<16}  {entry.action} {entry.subject}"
    before, after = entry.before or {}, entry.after or {}
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return "\n".join([head, *(f"    {name}: {_text(before, name)} -> {_text(after, name)}" for name in changed)])


def _text(values: Any, name: str) -> str:
    return json.dumps(values[name], ensure_ascii=True) if name in values else "-"
