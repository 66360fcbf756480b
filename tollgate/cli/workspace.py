"""`tollgate workspace`: onboards labs and changes what is the operator's to change (spec section 6).

Never prints a credential but in the answer that mints it, and never needs the server to run or to stand still.
"""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy import Connection

from control.core.refusals import RefusalError
from control.flow import workspaces as flow
from control.store.workspaces import Webhooks, Workspaces
from runtime import clock, settings
from schemas.config import WebhookRecord, WorkspaceRecord, WorkspaceState
from tollgate import workplace
from tollgate.workplace import Workplace

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


def _common(command: Command) -> Command:
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory."),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), options, command)


_which = click.option("--workspace", "workspace_name", required=True, help="Its name or id.")


@click.group()
def workspace() -> None:
    """Onboard and administer labs."""


@workspace.command()
@click.option("--name", required=True, help="The lab's name; unique.")
@click.option("--org-prefix", required=True, help="What its slugs begin with; owned by this workspace alone.")
@click.option("--operator-credential", is_flag=True, help="Let BASETEN targets without a secret use the operator's.")
@_common
def create(data: Path | None, name: str, org_prefix: str, *, operator_credential: bool, as_json: bool) -> None:
    """Onboard a lab; its management key and signing secret are printed this once."""
    with _opened(data, new=True) as place:
        onboarded = _change(
            place,
            lambda connection, now: flow.create(
                Workspaces(connection),
                Webhooks(connection),
                place.vault,
                now,
                name=name,
                org_prefix=org_prefix,
                operator_credential=operator_credential,
            ),
        )
    _print(asdict(onboarded), as_json=as_json)
    if not as_json:
        click.echo("The management key and the webhook secret are not shown again.", err=True)


@workspace.command("set-webhook")
@_which
@click.option(
    "--url", help="Where billing webhooks go: https, public, unless TOLLGATE_ALLOW_PRIVATE_RECEIVERS is true."
)
@click.option("--disable", is_flag=True, help="Keep the settings, but send nothing.")
@_common
def set_webhook(data: Path | None, workspace_name: str, url: str | None, *, disable: bool, as_json: bool) -> None:
    """Set where a lab's billing webhooks go."""
    if url is None and not disable:
        raise click.UsageError("give --url, --disable or both")
    with _opened(data) as place:

        def save(connection: Connection, now: datetime) -> WebhookRecord:
            return flow.set_webhook(
                Workspaces(connection),
                Webhooks(connection),
                now,
                workspace=workspace_name,
                url=url,
                enabled=not disable,
                allow_private=place.settings.allow_private_receivers,
            )

        saved = _change(place, save)
    _print({"workspace_id": saved.workspace_id, "url": saved.url, "enabled": saved.enabled}, as_json=as_json)


@workspace.command()
@_which
@_common
def suspend(data: Path | None, workspace_name: str, *, as_json: bool) -> None:
    """Refuse a lab's management calls and inference; its deliveries go on."""
    _set_state(data, workspace_name, WorkspaceState.SUSPENDED, as_json=as_json)


@workspace.command()
@_which
@_common
def resume(data: Path | None, workspace_name: str, *, as_json: bool) -> None:
    """Let a suspended lab work again."""
    _set_state(data, workspace_name, WorkspaceState.ACTIVE, as_json=as_json)


def _set_state(data: Path | None, name: str, state: WorkspaceState, *, as_json: bool) -> None:
    def save(connection: Connection, now: datetime) -> WorkspaceRecord:
        return flow.set_state(Workspaces(connection), now, name, state)

    with _opened(data) as place:
        saved = _change(place, save)
    _print({"workspace_id": saved.id, "name": saved.name, "state": saved.state.value}, as_json=as_json)


@contextmanager
def _opened(data: Path | None, *, new: bool = False) -> Iterator[Workplace]:
    """Open the data directory, or make one; every failure becomes one line and exit code 1."""
    try:
        with workplace.opened(settings.load(data_dir=data), new=new) as place:
            yield place
    except (settings.SettingsError, workplace.WorkplaceError, RefusalError) as error:
        raise click.ClickException(str(error)) from None


def _change(place: Workplace, work: Callable[[Connection, datetime], Result]) -> Result:
    now = clock.steady()()
    return place.write(lambda connection: work(connection, now))


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
        return
    width = max(map(len, answer))
    for name, value in answer.items():
        click.echo(f"{name:<{width}}  {'-' if value is None else value}")
