"""`tollgate serve`: runs the whole product in one process, or one role of it.

Never starts over another server's data directory.
"""

import asyncio
import gc
import importlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import uvloop

from runtime import settings, vault
from runtime.http.server import reserve
from runtime.settings import Settings
from runtime.telemetry import logs
from runtime.telemetry.logs import LogFormat
from tollgate import installation
from tollgate.cli import commands
from tollgate.cli.commands import Where
from tollgate.installation import InstallationError
from tollgate.roles import waiting
from tollgate.roles import workers as supervisor
from tollgate.roles.process import COLLECTING_AT_START, Addresses, Process, Role, public_listener

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
@click.option(
    "--workers",
    type=click.IntRange(1, supervisor.MOST),
    default=1,
    help="For `proxy`: how many processes serve the port.  [default: 1]",
)
@click.option("--rate-limits-per-worker", is_flag=True, help="Let each of several workers count rate limits by itself.")
@click.option("--worker", type=int, hidden=True, help="Be the worker of this number.")
@click.option("--leaving", is_flag=True, hidden=True, help="Be one that publishes what is left, and ends.")
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
    workers: int,
    rate_limits_per_worker: bool,
    worker: int | None,
    leaving: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Run everything in one process on SQLite, or with ROLE that part alone, over Kafka and PostgreSQL."""
    logs.configure(LogFormat.TEXT)
    try:
        loaded = commands.load(where, log.warning, host=host, port=port, ops_host=ops_host, ops_port=ops_port)
        logs.configure(loaded.log_format)
        _refuse_contradictions(loaded, role)
        _refuse_workers(loaded, role, workers, per_worker=rate_limits_per_worker)
        if check:
            click.echo(json.dumps({"valid": True}) if as_json else "the settings are valid")
            return
        if role == "proxy" and worker is None:
            if loaded.redis_url is None:
                log.info("rate limits hold at each proxy by itself: TOLLGATE_REDIS_URL is not set")
            left = supervisor.left_behind(loaded.data_dir, workers)
            if workers > 1 or left:
                _supervise(loaded, where, workers, left, as_json=as_json)
                return
        if worker is not None:
            loaded = supervisor.of_worker(loaded, worker)
        _serve_one(loaded, role, where.config, as_json=as_json, worker=worker, leaving=leaving)
    except (settings.SettingsError, vault.VaultError, InstallationError, OSError) as error:
        raise click.ClickException(str(error)) from None


def _serve_one(
    loaded: Settings, role: str | None, config: Path | None, *, as_json: bool, worker: int | None, leaving: bool
) -> None:
    """Run one process. Raise what it fails with."""
    with ExitStack() as closing:
        module = importlib.import_module(_MODULES[role])
        prepare = module.prepare_leaving if leaving else module.prepare
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        gc.set_threshold(*COLLECTING_AT_START)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if role in _NEED_DATABASE:
                make = runner.run(waiting.prepared(loaded, closing, prepare))
            else:
                make = prepare(loaded, closing)
            if make is not None:
                runner.run(_run(loaded, make, config, as_json=as_json, is_worker=worker is not None))


def _supervise(loaded: Settings, where: Where, count: int, left: Sequence[int], *, as_json: bool) -> None:
    """Run several workers of a proxy. Raise OSError where the port is taken."""
    public_listener(loaded).close()  # another's, workers of another installation included, would be shared
    with reserve(loaded.host, loaded.port, shared=True) as reserved:  # so that a free port stays ours
        port = reserved.getsockname()[1]
        workers = [_worker(loaded, where, number, port) for number in range(1, count + 1)]
        workers += [_worker(loaded, where, number, port, leaves=True) for number in left]

        def announce(addresses: list[Addresses]) -> None:
            url, ops = addresses[0].public, [each.ops for each in addresses]
            if as_json:
                click.echo(json.dumps({"url": url, "ops_url": ops[0], "ops_urls": ops}))
            else:
                several = f"{count} workers serve" if count > 1 else "Tollgate serves"
                click.echo(f"{several} the inference API on {url} (operator's ports: {', '.join(ops)})")

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(supervisor.Supervisor(workers).run(announce))


def _worker(loaded: Settings, where: Where, number: int, port: int, *, leaves: bool = False) -> supervisor.Worker:
    ops_port = loaded.ops_port + number - 1 if loaded.ops_port and not leaves else 0
    words = ["serve", "proxy", "--worker", str(number), "--json"]
    words += ["--host", loaded.host, "--port", str(port), "--ops-host", loaded.ops_host]
    words += ["--data", str(loaded.data_dir), *(["--config", str(where.config)] if where.config else [])]
    return supervisor.Worker(number, [*words, "--leaving"] if leaves else words, ops_port, leaves)


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


def _refuse_workers(loaded: Settings, role: str | None, count: int, *, per_worker: bool) -> None:
    if count == 1:
        return
    if role is None:
        raise click.UsageError(
            "--workers is for `tollgate serve proxy`; bare `tollgate serve` is one process, for its ledger and its "
            "deliveries lie in one SQLite file"
        )
    if role != "proxy":
        raise click.UsageError(
            f"--workers is for `tollgate serve proxy`; start `tollgate serve {role}` once more instead"
        )
    if loaded.redis_url is None and not per_worker:
        raise click.UsageError(
            f"{count} workers without TOLLGATE_REDIS_URL each count rate limits by themselves, so that a key gets up "
            f"to {count} times what its limits say; set TOLLGATE_REDIS_URL, or take that with --rate-limits-per-worker"
        )


async def _run(
    loaded: Settings, make: Callable[[], Role], config: Path | None, *, as_json: bool, is_worker: bool
) -> None:
    role = make()  # on the event loop, which its parts belong to

    def announce(addresses: Addresses) -> None:
        if as_json:
            click.echo(json.dumps({"url": addresses.public, "ops_url": addresses.ops}))
            return
        on = f" on {addresses.public}" if addresses.public else ""
        click.echo(f"Tollgate serves {role.title}{on} (operator's port: {addresses.ops})")
        if role.is_new():
            click.echo(_next_steps(loaded.data_dir, config))

    process = Process(loaded, role, shares_port=is_worker)
    if is_worker:  # it ends when its supervisor does, who holds the other end
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), process.stop)
    await process.serve(announce)


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
