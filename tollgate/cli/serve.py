"""`tollgate serve`: runs the whole product in one process, or one role of it.

Never starts over another server's data directory, and never without saying where it listens.
"""

import asyncio
import importlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click
import uvloop

from runtime import settings, vault
from runtime.settings import Settings
from tollgate import installation
from tollgate.cli import commands
from tollgate.cli.commands import Where
from tollgate.installation import InstallationError
from tollgate.roles import waiting
from tollgate.roles.process import Addresses, Process, Role

_SWITCH_INTERVAL_S = 0.001
"""How long a database thread may keep the interpreter from the event loop; Python's own 5 ms is felt by every call."""

_MODULES = {
    None: "tollgate.roles.embedded",
    "control": "tollgate.roles.control",
    "proxy": "tollgate.roles.proxy",
    "metering": "tollgate.roles.metering",
    "webhooks": "tollgate.roles.webhooks",
}
"""Role to the module whose `prepare` opens what it works on. None: all of them in one process."""

_ROLES = tuple(role for role in _MODULES if role is not None)
_APART = ("kafka_bootstrap", "database_url")
"""The settings that only an installation of several processes has."""
_NEEDS = {
    "control": ("kafka_bootstrap", "database_url", "master_key"),
    "proxy": ("kafka_bootstrap", "master_key"),
    "metering": ("kafka_bootstrap", "database_url"),
    "webhooks": ("kafka_bootstrap", "database_url", "master_key"),
}
"""The settings that a role cannot do without."""
_NEED_DATABASE = {role for role, names in _NEEDS.items() if "database_url" in names}

log = logging.getLogger("tollgate")


@click.command()
@click.argument("role", type=click.Choice(_ROLES), required=False)
@commands.located
@click.option("--host", help="Where management and inference listen.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Their port, 0 for a free one.  [default: 8080]")
@click.option("--ops-host", help="Where the operator's port listens.  [default: 127.0.0.1]")
@click.option(
    "--ops-port", type=int, help="The operator's port, 0 for a free one.  [default: 8081, a free one where it is taken]"
)
@click.option("--check", is_flag=True, help="Load the settings, say what is wrong with them, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON object.")
def serve(
    *,
    role: str | None,
    where: Where,
    host: str | None,
    port: int | None,
    ops_host: str | None,
    ops_port: int | None,
    check: bool,
    as_json: bool,
) -> None:
    """Run everything in one process on SQLite, or with ROLE that part alone, over Kafka and PostgreSQL."""
    _log_to_stderr()
    try:
        loaded = commands.load(where, log.warning, host=host, port=port, ops_host=ops_host, ops_port=ops_port)
        _refuse_contradictions(loaded, role)
        if check:
            click.echo(json.dumps({"valid": True}) if as_json else "the settings are valid")
            return
        if role == "proxy" and loaded.redis_url is None:
            log.info("rate limits hold at each proxy by itself: TOLLGATE_REDIS_URL is not set")
        with ExitStack() as closing:
            prepare = importlib.import_module(_MODULES[role]).prepare
            sys.setswitchinterval(_SWITCH_INTERVAL_S)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                if role in _NEED_DATABASE:
                    make = runner.run(waiting.prepared(loaded, closing, prepare))
                else:
                    make = prepare(loaded, closing)
                if make is not None:
                    runner.run(_run(loaded, make, where.config, as_json=as_json))
    except (settings.SettingsError, vault.VaultError, InstallationError, OSError) as error:
        raise click.ClickException(str(error)) from None


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _refuse_contradictions(loaded: Settings, role: str | None) -> None:
    given = [settings.variable(name) for name in _APART if getattr(loaded, name) is not None]
    if role is None and given:
        raise click.UsageError(
            f"{given[0]} is set, but bare `tollgate serve` runs on its own data directory; "
            f"unset it, or name a role: {', '.join(_ROLES)}"
        )
    if role is not None:
        settings.require(loaded, _NEEDS[role], f"`tollgate serve {role}`")
    if loaded.database_url is not None:
        with ExitStack() as closing:
            installation.shared_database(loaded, closing)  # reads the URL, and connects nowhere


async def _run(loaded: Settings, make: Callable[[], Role], config: Path | None, *, as_json: bool) -> None:
    role = make()  # on the event loop, which its parts belong to

    def announce(addresses: Addresses) -> None:
        if as_json:
            click.echo(json.dumps({"url": addresses.public, "ops_url": addresses.ops}))
            return
        on = f" on {addresses.public}" if addresses.public else ""
        click.echo(f"Tollgate serves {role.title}{on} (operator's port: {addresses.ops})")
        if role.is_new():
            click.echo(_next_steps(loaded.data_dir, config))

    await Process(loaded, role).serve(announce)


def _next_steps(folder: Path, config: Path | None) -> str:
    tollgate = f"{_typed(Path(sys.argv[0]))} workspace"
    place = f"--data {_typed(folder)}" + (f" --config {_typed(config)}" if config else "")
    return (
        f"No lab is onboarded yet. In another terminal:\n"
        f"  {tollgate} create --name lab --org-prefix your-org {place}\n"
        f"  {tollgate} set-webhook --workspace lab --url https://... {place}\n"
        f"Then README.md, \"Keep one\", shows the lab's and the developer's first calls."
    )


def _typed(path: Path) -> str:
    """Return a path as it may be typed into a shell in any folder."""
    return shlex.quote(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow the command's own symbolic link
