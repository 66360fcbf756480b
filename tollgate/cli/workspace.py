"""`tollgate workspace`: onboards labs and changes what is the operator's to change (contract 6).

A credential is printed once, in the answer that mints it. The server may run or not.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any, BinaryIO, TypeVar

import click
from sqlalchemy import Connection

from control.core.records import Scope
from control.flow import webhooks as webhooks_flow
from control.flow import workspaces as flow
from control.store import units
from control.store.workspaces import SqlWorkspaces
from control.unit_of_work import UnitOfWork
from runtime import clock
from runtime.vault import Vault
from schemas.base import LONGEST_OVERLAP_S
from schemas.billing import MOST_ALERTS, BillingWebhook
from schemas.config import WebhookRecord, WorkspaceRecord, WorkspaceState
from tollgate.cli import commands, terminal
from tollgate.cli.commands import Where
from tollgate.cli.menu import Menu
from tollgate.installation import Installation

Result = TypeVar("Result")

_MAX_PEM_BYTES = 16 * 1024


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    return as_json(commands.located(command))


_which = click.option("--workspace", "workspace_name", required=True, help="Its name or id.")


@click.group(cls=Menu)
def workspace() -> None:
    """Onboard and administer labs."""


@workspace.command()
@click.option("--name", required=True, help="The lab's name; unique.")
@click.option("--org-prefix", required=True, help="What its slugs begin with; owned by this workspace alone.")
@click.option("--operator-credential", is_flag=True, help="Let BASETEN targets without a secret use the operator's.")
@_common
def create(where: Where, name: str, org_prefix: str, *, operator_credential: bool, as_json: bool) -> None:
    """Onboard a lab; its management key and signing secret are printed this once."""
    with commands.opened(where, new=True) as place:
        onboarded = _seal(
            place,
            lambda unit, vault: flow.create(
                unit, vault, name=name, org_prefix=org_prefix, operator_credential=operator_credential
            ),
        )
    _print(asdict(onboarded), as_json=as_json)
    if not as_json:
        click.echo(f"Onboarded in {place.where}. The key and the secret are not shown again.", err=True)


@workspace.command("list")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_(where: Where, *, as_json: bool) -> None:
    """Show every lab with its id and state, by name."""
    with commands.opened(where) as place:
        found = place.read(lambda connection: SqlWorkspaces(connection).every())
    records = sorted(found, key=lambda one: one.name)
    width = max((len(one.name) for one in records), default=0)
    lines = (
        json.dumps(_identity(one)) if as_json else f"{one.name:<{width}}  {one.id}  {one.state.value}"
        for one in records
    )
    commands.print_list(lines, f"No workspaces in {place.where}.", as_json=as_json)


@workspace.command()
@_which
@_common
def show(where: Where, workspace_name: str, *, as_json: bool) -> None:
    """Show a lab: its prefixes, management keys (never their plaintext) and webhook settings."""
    with commands.opened(where) as place:
        found = place.read(lambda connection: _shown(connection, workspace_name))
    if not as_json:
        found["management_keys"] = [f"{key['prefix']} ({key['scope']})" for key in found["management_keys"]]
    _print(found, as_json=as_json)


@workspace.command("set-webhook")
@_which
@click.option(
    "--url", help="Where billing webhooks go: https, public, unless TOLLGATE_ALLOW_PRIVATE_RECEIVERS is true."
)
@click.option(
    "--enable/--disable", default=None, help="Send, or keep the settings but send nothing.  [default: --enable]"
)
@click.option(
    "--usage-alert",
    "alerts",
    type=click.IntRange(0, 100),
    multiple=True,
    help="Deliver an alert when a customer's day or month reaches so many percent of a limit; up to 5 times. 0: none.",
)
@_common
def set_webhook(
    where: Where, workspace_name: str, url: str | None, alerts: tuple[int, ...], *, enable: bool | None, as_json: bool
) -> None:
    """Set where a lab's billing webhooks go, and at which usage it is alerted; what is not given stays."""
    if url is None and enable is None and not alerts:
        raise click.UsageError("give --url, --enable, --disable or --usage-alert")
    shares = {share for share in alerts if share}
    if len(shares) > MOST_ALERTS:
        raise click.UsageError(f"give --usage-alert at most {MOST_ALERTS} times")
    with commands.opened(where) as place:

        def save(unit: UnitOfWork) -> WebhookRecord:
            lab = _of(unit, workspace_name)
            kept = webhooks_flow.get(lab)
            body = BillingWebhook(
                url=kept.url if url is None else url,
                enabled=(kept.enabled if url is None else True) if enable is None else enable,
                usage_alerts=tuple(shares) if alerts else kept.usage_alerts,
            )
            return webhooks_flow.save(lab, body, allow_private=place.settings.allow_private_receivers)

        saved = _change(place, save)
    shown = {"workspace_id": saved.workspace_id, "url": saved.url, "enabled": saved.enabled}
    _print(shown | {"usage_alerts": list(saved.usage_alerts)}, as_json=as_json)


@workspace.command("rotate-secret")
@_which
@click.option(
    "--overlap",
    "overlap_s",
    required=True,
    type=click.IntRange(0, LONGEST_OVERLAP_S),
    help="Seconds that the secret before signs too; 0 ends it at once.",
)
@_common
def rotate_secret(where: Where, workspace_name: str, overlap_s: int, *, as_json: bool) -> None:
    """Make a new signing secret; it is printed this once."""
    with commands.opened(where) as place:
        rotated = _seal(
            place,
            lambda unit, vault: webhooks_flow.rotate_secret(
                _of(unit, workspace_name), vault, timedelta(seconds=overlap_s)
            ),
        )
    _print(rotated.model_dump(mode="json"), as_json=as_json)
    if not as_json:
        click.echo("The secret is not shown again.", err=True)


@workspace.command("test-webhook")
@_which
@_common
def test_webhook(where: Where, workspace_name: str, *, as_json: bool) -> None:
    """Send a lab's receiver one signed delivery that bills nothing; exits 1 where it did not take it."""
    from control import sample_delivery  # noqa: PLC0415 - no other command sends

    with commands.opened(where) as place:
        record, url = place.read(lambda connection: webhooks_flow.receiver(_of(_unit(connection), workspace_name)))
        sender = sample_delivery.SampleDelivery(place.vault, allow_private=place.settings.allow_private_receivers)
        tested = asyncio.run(sender.send(record, url, clock.steady()()))
    _print(tested.model_dump(mode="json"), as_json=as_json)
    if not tested.delivered:
        raise click.exceptions.Exit(1)


@workspace.command()
@_which
@_common
def suspend(where: Where, workspace_name: str, *, as_json: bool) -> None:
    """Refuse a lab's management calls and inference; its deliveries go on."""
    _set_state(where, workspace_name, WorkspaceState.SUSPENDED, as_json=as_json)


@workspace.command()
@_which
@_common
def resume(where: Where, workspace_name: str, *, as_json: bool) -> None:
    """Let a suspended lab work again."""
    _set_state(where, workspace_name, WorkspaceState.ACTIVE, as_json=as_json)


@workspace.command("add-prefix")
@_which
@click.option("--org-prefix", required=True, help="One more beginning of its slugs; owned by this workspace alone.")
@_common
def add_prefix(where: Where, workspace_name: str, org_prefix: str, *, as_json: bool) -> None:
    """Let a lab own one more org prefix."""
    with commands.opened(where) as place:
        owner = _change(
            place,
            lambda unit: flow.add_prefix(unit, workspace_name, org_prefix),
        )
    _print({"workspace_id": owner.id, "org_prefix": org_prefix}, as_json=as_json)


@workspace.command("add-host")
@_which
@click.option("--host", required=True, help="A domain name that leads here, as api.your-lab.com.")
@_common
def add_host(where: Where, workspace_name: str, host: str, *, as_json: bool) -> None:
    """Serve a lab alone under a host name: only its keys work there."""
    with commands.opened(where) as place:
        owner = _change(place, lambda unit: flow.add_host(unit, workspace_name, host))
    _print({"workspace_id": owner.id, "hosts": list(owner.hosts)}, as_json=as_json)


@workspace.command("remove-host")
@_which
@click.option("--host", required=True, help="One of the lab's host names.")
@_common
def remove_host(where: Where, workspace_name: str, host: str, *, as_json: bool) -> None:
    """Let a host name be no lab's any more."""
    with commands.opened(where) as place:
        owner = _change(place, lambda unit: flow.remove_host(unit, workspace_name, host))
    _print({"workspace_id": owner.id, "hosts": list(owner.hosts)}, as_json=as_json)


@workspace.command("set-public-key")
@_which
@click.option(
    "--file",
    "pem",
    required=True,
    type=click.File("rb"),
    help="An Ed25519 public key in PEM form; it confirms the lab's signatures of keys that it registers.",
)
@_common
def set_public_key(where: Where, workspace_name: str, pem: BinaryIO, *, as_json: bool) -> None:
    """Set the key that confirms what a lab signs when it registers keys of its own."""
    text = pem.read(_MAX_PEM_BYTES)
    with commands.opened(where) as place:
        owner = _change(
            place,
            lambda unit: flow.set_public_key(unit, workspace_name, text),
        )
    _print({"workspace_id": owner.id, "name": owner.name}, as_json=as_json)


@workspace.command("issue-key")
@_which
@click.option(
    "--scope", required=True, type=click.Choice([scope.value for scope in Scope]), help="`read` may only GET."
)
@_common
def issue_key(where: Where, workspace_name: str, scope: str, *, as_json: bool) -> None:
    """Return a lab one more management key; it is printed this once."""
    with commands.opened(where) as place:
        plaintext, key = _change(
            place,
            lambda unit: flow.issue_key(unit, workspace_name, Scope(scope)),
        )
    _print({"api_key": plaintext, "prefix": key.prefix}, as_json=as_json)
    if not as_json:
        click.echo("The management key is not shown again.", err=True)


@workspace.command("revoke-key")
@_which
@click.option("--prefix", required=True, help="The first 16 characters of the management key.")
@_common
def revoke_key(where: Where, workspace_name: str, prefix: str, *, as_json: bool) -> None:
    """Let one of a lab's management keys work no longer."""
    with commands.opened(where) as place:
        key = _change(
            place,
            lambda unit: flow.revoke_key(unit, workspace_name, prefix),
        )
    _print({"workspace_id": key.workspace_id, "prefix": key.prefix}, as_json=as_json)


def _set_state(where: Where, name: str, state: WorkspaceState, *, as_json: bool) -> None:
    with commands.opened(where) as place:
        saved = _change(place, lambda unit: flow.set_state(unit, name, state))
    _print(_identity(saved), as_json=as_json)


def _identity(record: WorkspaceRecord) -> dict[str, Any]:
    return {"workspace_id": record.id, "name": record.name, "state": record.state.value}


def _shown(connection: Connection, name: str) -> dict[str, Any]:
    """Return what the operator set of a workspace, without any secret. Raise NotFoundError."""
    workspaces = SqlWorkspaces(connection)
    record = flow.get(workspaces, name)
    webhook = webhooks_flow.get(_unit(connection).of(record.id))
    keys = workspaces.management_keys(record.id)
    return {
        **_identity(record),
        "org_prefixes": workspaces.org_prefixes(record.id),
        "management_keys": [{"prefix": key.prefix, "scope": key.scope.value} for key in keys],
        "webhook_url": webhook.url,
        "webhook_enabled": webhook.enabled,
        "usage_alerts": list(webhook.usage_alerts),
        "public_key_set": workspaces.public_key(record.id) is not None,
        "operator_credential": record.operator_credential,
        "hosts": list(record.hosts),
    }


def _of(unit: UnitOfWork, name: str) -> UnitOfWork:
    """Return the unit for the workspace of this name or id. Raise NotFoundError."""
    return unit.of(flow.get(unit.workspaces, name).id)


def _unit(connection: Connection) -> UnitOfWork:
    return units.over(connection, commands.now(connection))


def _change(place: Installation, work: Callable[[UnitOfWork], Result]) -> Result:
    return place.write(lambda connection: work(_unit(connection)))


def _seal(place: Installation, work: Callable[[UnitOfWork, Vault], Result]) -> Result:
    """Change what holds secrets: with the vault whose key the installation's secrets are sealed with."""
    return place.write(lambda connection: work(_unit(connection), place.sealer(connection)))


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
        return
    width = max(map(len, answer))
    for name, value in answer.items():
        click.echo(f"{name:<{width}}  {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else terminal.safe(str(value))
