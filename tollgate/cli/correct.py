"""`tollgate correct`: corrects what an event counted, by a further event (spec section 4).

Never changes the event itself, and never needs the server to run or to stand still.
"""

import json
from pathlib import Path

import click

from control.flow import corrections as flow
from control.store.corrections import Corrections
from runtime import clock
from schemas.usage import UsageEvent
from tollgate.cli import commands


@click.command()
@click.option("--event", "event_key", required=True, metavar="KEY", help="The idempotencyKey of the event to correct.")
@click.option("--input", "input_tokens", type=int, default=0, show_default=True, help="Input tokens to add; signed.")
@click.option("--output", "output_tokens", type=int, default=0, show_default=True, help="Output tokens to add; signed.")
@click.option("--reason", required=True, help="Why; the lab receives it.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
@click.option("--json", "as_json", is_flag=True, help="Print the correction as one JSON object.")
def correct(
    *, event_key: str, input_tokens: int, output_tokens: int, reason: str, data: Path | None, as_json: bool
) -> None:
    """Add to what an event counted, or take back from it; the lab is told by webhook."""
    now = clock.steady()()
    with commands.opened(data) as place:
        made = place.write(
            lambda connection: flow.correct(
                Corrections(connection),
                now,
                event_key=event_key,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                reason=reason,
            )
        )
    click.echo(_as_json(made) if as_json else _as_text(made))


def _as_json(made: UsageEvent) -> str:
    return json.dumps(made.model_dump(mode="json"))


def _as_text(made: UsageEvent) -> str:
    tokens = made.tokens
    return (
        f"{made.idempotency_key} corrects {made.corrects} by {tokens.input_tokens:+,} input and "
        f"{tokens.output_tokens:+,} output tokens, on {made.timestamp.date()}"
    )
