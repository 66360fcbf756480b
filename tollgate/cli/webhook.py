"""`tollgate webhook`: what a lab tries its receiver against (contract 6)."""

import asyncio
import json
from pathlib import Path

import click

from runtime import clock
from tollgate.cli import terminal
from tollgate.cli.menu import Menu
from tollgate.tools import receiver
from webhooks.core import signing


@click.group(cls=Menu)
def webhook() -> None:
    """Receive and check billing webhooks."""


@webhook.command("listen")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="0 picks a free one.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    required=True,
    help="The workspace's signing secret; again for a second one during a rotation.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Append each request as a JSON line.")
@click.option("--status", type=click.IntRange(200, 599), default=200, show_default=True, help="What it answers.")
@click.option("--fail-rate", type=click.FloatRange(0, 1), default=0.0, help="The share that it answers 500 instead.")
@click.option("--slow", "slow_s", type=click.FloatRange(0, 3600), default=0.0, help="Seconds that each answer waits.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def listen_command(
    *,
    host: str,
    port: int,
    secrets: tuple[str, ...],
    out: Path | None,
    status: int,
    fail_rate: float,
    slow_s: float,
    as_json: bool,
) -> None:
    """Receive webhooks, verify both signatures and print the bodies; the first line printed is the URL.

    Answers 200, or as --status, --fail-rate and --slow say, where the signatures hold, else 401. Ends with Ctrl-C.
    """
    behaviour = receiver.Behaviour(status, fail_rate, slow_s)

    def announce(url: str) -> None:
        click.echo(json.dumps({"url": url}) if as_json else url)

    def show(receipt: receiver.Receipt) -> None:
        if as_json:
            click.echo(json.dumps(receipt.as_dict()))
            return
        click.echo("\n".join(map(terminal.safe, receiver.pretty(receipt.body).split("\n"))))
        if receipt.verified:
            answered = "" if receipt.answered == 200 else f", answered {receipt.answered}"
            click.secho(f"signature verified{answered}", fg="green")
        else:
            click.secho(f"signature not verified: {receipt.problem}", fg="red")

    try:
        for secret in secrets:
            signing.decode(secret)
        app = receiver.ReceiverApp(secrets, clock.steady(), receiver.keeper(show, out), behaviour)
        asyncio.run(receiver.serve(app, host, port, announce))
    except signing.SecretError as error:
        raise click.BadParameter(str(error), param_hint="--secret") from None
    except OSError as error:
        raise click.ClickException(str(error)) from None
