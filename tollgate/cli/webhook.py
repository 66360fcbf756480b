"""`tollgate webhook`: what a lab tries its receiver against (contract 6)."""

import asyncio
import json
from functools import partial
from pathlib import Path

import click
import httpx

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
@click.option("--forward-to", "forward_to", help="Pass what is verified on to this URL, and answer as it does.")
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
    forward_to: str | None,
    as_json: bool,
) -> None:
    """Receive webhooks, verify both signatures and print the bodies; the first line printed is the URL.

    Answers 200, or as --status, --fail-rate and --slow say, where the signatures hold, else 401. With --forward-to your
    program on this machine gets the same request, and its answer is what Tollgate gets. Ends with Ctrl-C.
    """
    _check_forward(forward_to)

    def announce(url: str) -> None:
        click.echo(json.dumps({"url": url}) if as_json else url)

    forward = None if forward_to is None else receiver.forwarder(forward_to)
    try:
        for secret in secrets:
            signing.decode(secret)
        keep = receiver.keeper(partial(_show, as_json=as_json), out)
        behaviour = receiver.Behaviour(status, fail_rate, slow_s)
        app = receiver.ReceiverApp(secrets, clock.steady(), keep, behaviour, forward)
        asyncio.run(receiver.serve(app, host, port, announce))
    except signing.SecretError as error:
        raise click.BadParameter(str(error), param_hint="--secret") from None
    except OSError as error:
        raise click.ClickException(str(error)) from None


def _show(receipt: receiver.Receipt, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(receipt.as_dict()))
        return
    click.echo("\n".join(map(terminal.safe, receiver.pretty(receipt.body).split("\n"))))
    if receipt.verified:
        answered = "" if receipt.answered == 200 else f", answered {receipt.answered}"
        click.secho(f"signature verified{answered}", fg="green")
    else:
        click.secho(f"signature not verified: {receipt.problem}", fg="red")


def _check_forward(url: str | None) -> None:
    try:
        parsed = httpx.URL(url or "http://localhost")
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise click.BadParameter("must be http://HOST:PORT/PATH, or https", param_hint="--forward-to")
