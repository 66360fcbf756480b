"""`tollgate mock-upstream`: an OpenAI-compatible upstream for trying things out (contract 6)."""

import asyncio
import json
from pathlib import Path

import click
import uvloop

from tollgate.tools import mock_upstream

_RATE = click.FloatRange(0, 1)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("mock-upstream")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="0 picks a free one.")
@click.option("--latency-ms", type=click.IntRange(0), default=0, show_default=True, help="Before the first byte.")
@click.option(
    "--tokens", type=click.IntRange(1, 100_000), default=16, show_default=True, help="Most output of a choice."
)
@click.option(
    "--cached-tokens", type=click.IntRange(0), default=0, show_default=True, help="Told as part of the input."
)
@click.option("--chunk-interval-ms", type=click.IntRange(0), default=0, show_default=True, help="Between chunks.")
@click.option("--fail-rate", type=_RATE, default=0.0, show_default=True, help="Requests answered 500.")
@click.option("--break-rate", type=_RATE, default=0.0, show_default=True, help="Streams cut in the middle.")
@click.option("--no-usage", is_flag=True, help="Answer without token counts.")
@click.option("--account", type=_FILE, help="Keep an account of what was answered: JSON Lines, appended to.")
@click.option("--record", type=_FILE, help="Keep each request's headers and exact body: JSON Lines, appended to.")
@click.option("--json", "as_json", is_flag=True, help="Print the base URL as JSON.")
def command(
    *,
    host: str,
    port: int,
    latency_ms: int,
    tokens: int,
    cached_tokens: int,
    chunk_interval_ms: int,
    fail_rate: float,
    break_rate: float,
    no_usage: bool,
    account: Path | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Serve an OpenAI-compatible upstream that needs no model; the first line printed is its base URL.

    Input tokens are the bytes of the message contents / 4, rounded up; output tokens are --tokens, or the request's
    max_tokens where that is less. GET /account gives the sums.
    """
    options = mock_upstream.Options(
        tokens=tokens,
        cached_tokens=cached_tokens,
        latency_ms=latency_ms,
        chunk_interval_ms=chunk_interval_ms,
        fail_rate=fail_rate,
        break_rate=break_rate,
        usage=not no_usage,
        account=account,
        record=record,
    )

    def announce(url: str) -> None:
        click.echo(json.dumps({"base_url": url}) if as_json else url)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(mock_upstream.serve(options, host, port, announce))
    except OSError as error:
        raise click.ClickException(f"cannot serve on {host}:{port}: {error}") from None
