"""`tollgate correct`: corrects what an event counted, by a further event (contract 4).

The event itself stays. The server may run or not.
"""

import json
from functools import partial

import click
from sqlalchemy import Connection

from control.flow import corrections as flow
from control.store.corrections import SqlCorrections
from runtime import clock
from runtime.database import engines
from schemas.usage import UsageEvent
from tollgate.cli import commands
from tollgate.cli.commands import Where


@click.command()
@click.option("--event", "event_key", required=True, metavar="KEY", help="The idempotencyKey of the event to correct.")
@click.option("--input", "input_tokens", type=int, default=0, show_default=True, help="Input tokens to add; signed.")
@click.option("--output", "output_tokens", type=int, default=0, show_default=True, help="Output tokens to add; signed.")
@click.option("--reason", required=True, help="Why; the lab receives it.")
@click.option("--key", metavar="KEY", help="Of an earlier try whose outcome is unknown: one key corrects once.")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print the correction as one JSON object.")
def correct(
    *,
    event_key: str,
    input_tokens: int,
    output_tokens: int,
    reason: str,
    key: str | None,
    where: Where,
    as_json: bool,
) -> None:
    """Add to what an event counted, or take back from it; the lab is told by webhook."""

    def work(connection: Connection) -> UsageEvent:
        made = flow.correct(
            SqlCorrections(connection),
            partial(engines.present, connection, clock.present),
            event_key=event_key,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reason=reason,
            key=key,
        )
        # Before the commit: whoever does not hear how that ended must be able to name this very correction.
        click.echo(f"If this does not end well, repeat it with --key {made.idempotency_key}: it counts once.", err=True)
        return made

    with commands.opened(where) as place:
        made = place.write(work)
    click.echo(_as_json(made) if as_json else _as_text(made))


def _as_json(made: UsageEvent) -> str:
    return json.dumps(made.model_dump(mode="json"))


def _as_text(made: UsageEvent) -> str:
    tokens = made.tokens
    return (
        f"{made.idempotency_key} corrects {made.corrects} by {tokens.input_tokens:+,} input and "
        f"{tokens.output_tokens:+,} output tokens, on {made.timestamp.date()}"
    )
