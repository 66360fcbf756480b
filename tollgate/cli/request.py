"""`tollgate request`: what became of one request (contract 2.5)."""

import json
from functools import partial

import click

from control.api import common, requests
from control.store import requests as store
from schemas.base import rfc3339
from schemas.billing import FoundRequest
from tollgate.cli import commands, terminal
from tollgate.cli.commands import Where


@click.command()
@click.argument("request_id")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def request(*, request_id: str, where: Where, as_json: bool) -> None:
    """Show what became of one request: its answer's x-request-id finds it.

    Refused and failed ones are kept 24 hours, complete ones as long as the ledger.
    """
    with commands.opened(where) as place:
        asked = requests.checked(request_id)
        story = place.read(partial(store.story, request_id=asked))
        if story is None:
            raise click.ClickException(f"no request that is kept has the id {asked}")
        found = requests.body(asked, story, by_operator=True)
        if as_json:
            click.echo(json.dumps(common.encode(found)))
        else:
            click.echo("\n".join(_lines(found, story.workspace_id)))


def _lines(found: FoundRequest, workspace_id: str | None) -> list[str]:
    named = {
        "request": found.request_id,
        "at": rfc3339(found.at),
        "workspace": workspace_id or "none: its key was refused",
        "outcome": found.outcome,
        "status": found.status,
        "reason": found.reason,
        "detail": found.detail,
        "group": found.group_id,
        "key": found.api_key_prefix,
        "slug": found.model_slug,
        "route": found.route,
        "upstream": found.upstream,
        "took": None if found.latency_ms is None else f"{found.latency_ms} ms",
        "first byte": None if found.first_byte_ms is None else f"{found.first_byte_ms} ms",
    }
    if found.event is not None:
        tokens = found.event.tokens
        named["event"] = f"{found.event.idempotency_key}: {tokens.input_tokens} in, {tokens.output_tokens} out"
        named["recorded"] = rfc3339(found.event.recorded_at)
    else:
        named["event"] = "none: nothing is billed"
    delivery = found.delivery
    if delivery is not None:
        named["delivery"] = f"{delivery.id}: {delivery.status.value}{f', {delivery.reason}' if delivery.reason else ''}"
    lines = [f"{name:<11}{terminal.safe(str(value))}" for name, value in named.items() if value is not None]
    for attempt in () if delivery is None else delivery.attempts:
        answer = attempt.error if attempt.status_code is None else attempt.status_code
        lines.append(f"{'attempt':<11}{rfc3339(attempt.at)}: {terminal.safe(str(answer))} in {attempt.duration_ms} ms")
    return lines
