"""`tollgate serve`: runs the product.

Never starts over another server's data directory, and never without saying where it listens.
"""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

import click
import uvloop

from control.store.workspaces import Workspaces
from runtime import settings, vault
from tollgate import workplace
from tollgate.embedded import Embedded
from tollgate.process import Addresses, Process

_SWITCH_INTERVAL_S = 0.001
"""How long a database thread may keep the interpreter from the event loop; Python's own 5 ms is felt by every call."""


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The data directory.  [default: data]")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="A tollgate.toml.")
@click.option("--host", help="Where management and inference listen.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Their port, 0 for a free one.  [default: 8080]")
@click.option("--ops-host", help="Where the operator's port listens.  [default: 127.0.0.1]")
@click.option("--ops-port", type=int, help="The operator's port, 0 for a free one.  [default: 8081]")
@click.option("--check", is_flag=True, help="Load the settings, say what is wrong with them, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON object.")
def serve(
    *,
    data: Path | None,
    config: Path | None,
    host: str | None,
    port: int | None,
    ops_host: str | None,
    ops_port: int | None,
    check: bool,
    as_json: bool,
) -> None:
    """Run everything in one process on SQLite: management, inference, metering and webhooks."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of each connection that speaks no HTTP
    for variable in ("TOLLGATE_KAFKA_BOOTSTRAP", "TOLLGATE_DATABASE_URL"):
        if os.environ.get(variable):
            raise click.UsageError(f"{variable} is set, but `tollgate serve` runs on its own data directory; unset it")
    for warning in settings.unknown_variables():
        logging.getLogger("tollgate").warning("%s", warning)
    try:
        loaded = settings.load(config, data_dir=data, host=host, port=port, ops_host=ops_host, ops_port=ops_port)
        if loaded.master_key is not None:
            vault.decode_key(loaded.master_key.get_secret_value())
        if check:
            click.echo("the settings are valid")
            return
        with workplace.locked(loaded.data_dir), workplace.opened(loaded, new=True) as place:
            workplace.check_master_key(place)
            sys.setswitchinterval(_SWITCH_INTERVAL_S)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(place, as_json=as_json))
    except (settings.SettingsError, vault.VaultError, workplace.WorkplaceError, OSError) as error:
        raise click.ClickException(str(error)) from None


async def _run(place: workplace.Workplace, *, as_json: bool) -> None:
    onboarded = place.read(lambda connection: bool(Workspaces(connection).every()))

    def announce(addresses: Addresses) -> None:
        if as_json:
            click.echo(json.dumps({"url": addresses.public, "ops_url": addresses.ops}))
        else:
            click.echo(f"Tollgate serves {place.folder} on {addresses.public} (operator's port: {addresses.ops})")
            if not onboarded:
                click.echo(_next_steps(place.folder))

    await Process(place.settings, Embedded(place)).serve(announce)


def _next_steps(folder: Path) -> str:
    tollgate = f"{sys.argv[0]} workspace"
    return (
        f"No lab is onboarded yet. In another terminal:\n"
        f"  {tollgate} create --name lab --org-prefix your-org --data {folder}\n"
        f"  {tollgate} set-webhook --workspace lab --url https://... --data {folder}\n"
        f"Then README.md, \"Keep one\", shows the lab's and the developer's first calls."
    )
