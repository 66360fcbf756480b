"""`tollgate quickstart`: from a running server to a first call in one go (contract 6)."""

import json
import shlex
from dataclasses import asdict
from typing import Any

import click
import httpx

from control.flow import workspaces as flow
from control.store import units
from tollgate.cli import commands
from tollgate.cli.commands import Where

_WITHIN_S = 30.0


class _Api:
    """The management API of the server, with the new lab's key."""

    def __init__(self, server: str, key: str = "") -> None:
        self._server = server.rstrip("/")
        self._headers = {"Authorization": f"Api-Key {key}"} if key else {}

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Return the answer. Raise ClickException with what the server says."""
        try:
            answer = httpx.request(
                method, f"{self._server}{path}", headers=self._headers, json=body, timeout=_WITHIN_S, trust_env=False
            )
            told: dict[str, Any] = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise click.ClickException(f"{self._server}{path} does not answer as a Tollgate server: {error}") from None
        if answer.status_code != httpx.codes.OK:
            said = told.get("error", {}).get("message", answer.text)
            raise click.ClickException(f"{method} {path} was answered {answer.status_code}: {said}")
        return told


@click.command()
@click.option("--server", default="http://127.0.0.1:8080", show_default=True, help="Where management answers.")
@click.option("--upstream", required=True, help="The model's server: its base URL with the version path.")
@click.option("--target-model", default="mock-model", show_default=True, help="What that server calls the model.")
@click.option("--receiver", help="Where billing webhooks go.  [default: nowhere]")
@click.option("--inference", help="Where inference answers, if not at --server: with roles apart, a proxy.")
@click.option("--name", default="lab", show_default=True, help="The workspace's name; unique.")
@click.option("--org-prefix", default="your-org", show_default=True, help="What its slugs begin with.")
@click.option("--model", default="small", show_default=True, help="What developers call it, behind the prefix.")
@click.option("--customer", default="acme", show_default=True, help="The first customer's name in the lab's books.")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def quickstart(
    *,
    server: str,
    upstream: str,
    target_model: str,
    receiver: str | None,
    inference: str | None,
    name: str,
    org_prefix: str,
    model: str,
    customer: str,
    where: Where,
    as_json: bool,
) -> None:
    """Make a workspace, an endpoint, a group, a key and a webhook on a running server, and print the call to type.

    It works on the server's own data directory or database (--data, --config, TOLLGATE_*), and on its API. Where the
    upstream or the receiver is on this machine, the server must have been started with TOLLGATE_ALLOW_PRIVATE_UPSTREAMS
    and TOLLGATE_ALLOW_PRIVATE_RECEIVERS set to true.
    """
    _Api(server).call("GET", "/readyz")  # before anything is made
    onboarded = _onboarded(where, name, org_prefix)
    made: dict[str, Any] = asdict(onboarded)
    api = _Api(server, onboarded.api_key)
    try:
        target = {"provider": "OPENAI_COMPATIBLE", "base_url": upstream, "target_model": target_model}
        _fill(api, made, f"{org_prefix}/{model}", target, customer)
        if receiver is not None:
            api.call("PUT", "/v1/gateway/billing_webhook", {"url": receiver, "enabled": True})
    finally:  # what was made is shown this once, also where a later step was refused
        if "developer_key" in made:
            made["curl"] = _curl(inference or server, made["developer_key"], made["slug"])
        _print(made, as_json=as_json)


def _onboarded(where: Where, name: str, org_prefix: str) -> flow.Onboarded:
    with commands.opened(where) as place:
        return place.write(
            lambda connection: flow.create(
                units.over(connection, commands.now(connection)),
                place.sealer(connection),
                name=name,
                org_prefix=org_prefix,
                operator_credential=False,
            )
        )


def _fill(api: _Api, made: dict[str, Any], slug: str, target: dict[str, str], customer: str) -> None:
    """Make the endpoint, the group and the key, noting each in `made`."""
    made["slug"] = api.call("POST", "/v1/gateway/endpoints", {"slug": slug, "targets": [target]})["slug"]
    limit = {"type": "TOKEN", "unit": "DAY", "threshold": 1_000_000}
    group = {"metadata": {"external_entity_id": customer}, "models": [{"slug": slug, "usage_limits": [limit]}]}
    made["group_id"] = api.call("POST", "/v1/gateway/groups", group)["id"]
    path = f"/v1/gateway/groups/{made['group_id']}/api_keys"
    made["developer_key"] = api.call("POST", path, {"name": "first"})["api_key"]


def _curl(server: str, key: str, slug: str) -> str:
    """Return the developer's first call, to be typed."""
    body = json.dumps({"model": slug, "messages": [{"role": "user", "content": "Hello"}]})
    words = ["-H", f"Authorization: Api-Key {key}", "-H", "content-type: application/json", "-d", body]
    return shlex.join(["curl", f"{server.rstrip('/')}/v1/chat/completions", *words])


def _print(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(made))
        return
    curl = made.pop("curl", None)
    for name, value in made.items():
        click.echo(f"{name:<16}{value}")
    if curl is not None:
        click.echo(f"\nThe developer's first call:\n\n{curl}")
    click.echo("Keys and secrets are not shown again.", err=True)
