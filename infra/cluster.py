"""`./run cluster`: the whole product as separate processes over Kafka, PostgreSQL and Redis, on this machine.

Starts the services and the processes on data of an earlier start or new ones, watches them, and ends them in order.
"""

import argparse
import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.store.workspaces import SqlWorkspaces
from infra.local import install, parts, process, services
from infra.local.parts import Part
from infra.local.process import LocalError, Process
from runtime import settings, vault
from runtime.settings import Settings, SettingsError
from runtime.vault import VaultError
from schemas import publish
from tollgate import installation
from tollgate.installation import InstallationError

MIGRATE_S = 120
STOP_S = 45
_LOOK_S = 0.5
_ON_THIS_MACHINE = {"allow_private_upstreams": "true", "allow_private_receivers": "true"}
"""Upstreams and receivers of a trial are on this machine too."""
_PASSWORD = re.compile("//[^/]*@")
_ENDING = (("control", "proxy"), ("metering", "webhooks"))
"""Who ends first: those that take requests, so that the others may still hear of their last ones."""


@dataclass
class Member:
    """A running part and what it announced."""

    part: Part
    process: Process
    announcement: Path

    def announced(self) -> dict[str, Any] | None:
        """Return its addresses: `url` (None where it has no public port) and `ops_url`; None before it said them."""
        line, end, _ = self.announcement.read_text(encoding="utf-8").partition("\n")
        if not end:
            return None
        said: dict[str, Any] = json.loads(line)
        return said

    @property
    def ops_url(self) -> str:
        """Its operator's port, once announced."""
        return str((self.announced() or {})["ops_url"])


class Ports:
    """The ports that a data directory's processes had, so that a later start has the same addresses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def of(self, name: str) -> int:
        """Return a part's port of last time, or a new one where that is taken or there was none."""
        port = self._known.get(name)
        if port is None or not process.is_free(port):
            taken = set(self._known.values())
            port = next(one for one in process.free_ports(len(taken) + 1) if one not in taken)
            self._known[name] = port
            self._path.write_text(json.dumps(self._known, indent=2), encoding="utf-8")
        return port


class Cluster:
    """Everything that runs, over one folder."""

    def __init__(self, folder: Path, stack: ExitStack, *, secure: bool = False) -> None:
        self.folder = folder
        self._secure = secure
        self.logs = folder / "logs"
        self.environment_file = folder / "environment"
        self.members: list[Member] = []
        self._services: list[Process] = []
        self._stack = stack
        self._ports = Ports(folder / "ports.json")
        self._settings: dict[str, str] = {}

    def start(self) -> None:
        """Start everything, and wait until traffic may come. Raise LocalError."""
        self.logs.mkdir(exist_ok=True)
        self._start_services()
        self._write_environment()
        say("migrating")
        self._migrate()
        say(f"starting {' '.join(f'{count} {role}' for role, count in parts.COUNTS.items())}")
        self._stack.callback(self._stop_members)
        for part in parts.parts(self.folder):
            self.members.append(self._start(part))
        for member in self.members:
            self._await(member)

    def check(self) -> None:
        """Raise LocalError where a part has ended."""
        for one in (*self._services, *(member.process for member in self.members)):
            if not one.alive():
                raise LocalError(f"{one.name} ended with exit code {one.popen.returncode}; its log ends:\n{one.tail()}")

    def _start_services(self) -> None:
        for name in ("kafka", "postgres", "redis"):
            install.ensure(name, install=True)
        make = services.secured if self._secure else services.plain
        made = make(self.folder, self._ports.of)
        say(f"starting Kafka, PostgreSQL and Redis{', with TLS' if self._secure else ''}")
        three = (made.postgres, made.kafka, made.redis)
        for service in three:  # all at once: each takes seconds
            self._stack.callback(service.stop)
            service.launch(self.logs)
        for service in three:
            service.await_ready()
            self._services.append(service.process)
        key = base64.b64encode(vault.load_or_create_key(self.folder / installation.MASTER_KEY_FILE)).decode()
        shared = parts.settings(made.settings["kafka_bootstrap"], made.settings["database_url"], key)
        self._settings = shared | made.settings | _ON_THIS_MACHINE

    def _write_environment(self) -> None:
        """Write what a shell needs so that `tollgate` works on this installation; it holds the master key.

        Also what the program in docs/finance.md reads.
        """
        variables = self._variables() | {
            "KAFKA_BOOTSTRAP": self._settings["kafka_bootstrap"],
            "TOPIC_PREFIX": self._loaded().kafka_topic_prefix,
            "SCHEMAS": str(publish.write(self.folder / "schemas")[0].parent),
        }
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
        with os.fdopen(os.open(self.environment_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(lines)

    def _variables(self) -> dict[str, str]:
        return {f"TOLLGATE_{name.upper()}": value for name, value in self._settings.items()}

    def _migrate(self) -> None:
        words = [tollgate(), "migrate", "--data", str(self.folder)]
        ended = subprocess.run(
            words, env=os.environ | self._variables(), capture_output=True, text=True, timeout=MIGRATE_S, check=False
        )
        if ended.returncode != 0:
            raise LocalError(f"tollgate migrate failed: {ended.stderr.strip()[-1500:]}")

    def _start(self, part: Part) -> Member:
        announcement = self.logs / f"{part.name}.json"
        announcement.write_text("", encoding="utf-8")
        port = self._ports.of(part.name) if part.role in parts.PUBLIC else 0
        ops_port = self._ports.of(f"{part.name} ops")
        started = process.start(
            part.name,
            [tollgate(), *part.words(port, ops_port)],
            self.logs / f"{part.name}.log",
            announcement=announcement,
            environment=os.environ | self._variables(),
        )
        return Member(part, started, announcement)

    def _await(self, member: Member) -> None:
        member.process.until(lambda: member.announced() is not None, parts.READY_S)
        member.process.until(lambda: parts.unready(member.ops_url) is None, parts.READY_S)

    def _stop_members(self) -> None:
        for roles in _ENDING:
            ending = [member.process for member in self.members if member.part.role in roles]
            for one in ending:
                one.ask_to_stop()  # all at once: each may take its time
            for one in ending:
                was_alive = one.alive()
                code = one.stop(STOP_S)
                if was_alive and code not in (0, -signal.SIGTERM):  # the latter: it was still being loaded
                    say(f"{one.name} ended with exit code {code}; its log ends:\n{one.tail()}")

    def _loaded(self) -> Settings:
        return settings.load(None, **self._settings, data_dir=self.folder)

    def _is_new(self) -> bool:
        with installation.opened(self._loaded()) as place:
            return not place.read(lambda connection: SqlWorkspaces(connection).every())

    def addresses(self) -> dict[str, Any]:
        """Return where everything is, and whether there is no lab yet. Raise InstallationError without a database."""
        said = {member.part.name: member.announced() or {} for member in self.members}
        public = {name: one["url"] for name, one in said.items() if one.get("url")}
        return {
            "control": [url for name, url in public.items() if name.startswith("control")],
            "proxies": [url for name, url in public.items() if name.startswith("proxy")],
            "ops": {name: one["ops_url"] for name, one in said.items()},
            "kafka": self._settings["kafka_bootstrap"],
            "database": self._settings["database_url"],
            "redis": _PASSWORD.sub("//", self._settings["redis_url"]),
            "environment": str(self.environment_file),
            "logs": str(self.logs),
            "is_new": self._is_new(),
            "own": {name: what for name, what in services.OWN.items() if name in self._settings}
            if self._secure
            else {},
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a cluster until Ctrl-C or SIGTERM; return the exit code: 1 where it did not start or a part ended."""
    parser = argparse.ArgumentParser(prog="./run cluster", description=(__doc__ or "").splitlines()[0])
    secure = (
        "Kafka, PostgreSQL and Redis by TLS and with passwords, in a folder of their own; say what to set elsewhere"
    )
    parser.add_argument("--secure", action="store_true", help=secure)
    parser.add_argument(
        "--data", type=Path, help="where all data and logs are kept (data/cluster, data/cluster-secure)"
    )
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object")
    given = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell that starts us in the background has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            folder = given.data or Path("data/cluster-secure" if given.secure else "data/cluster")
            run(folder.resolve(), stack, as_json=given.json, secure=given.secure)
    except KeyboardInterrupt:
        say("stopped")
        return 0
    except (LocalError, SettingsError, InstallationError, VaultError, OSError, subprocess.TimeoutExpired) as error:
        say(str(error))
        return 1
    return 0


def run(folder: Path, stack: ExitStack, *, as_json: bool, secure: bool = False) -> None:
    """Start a cluster, say where it is, and watch it. Raises KeyboardInterrupt when asked to end."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # where we are root, PostgreSQL's own user comes through
    stack.enter_context(installation.locked(folder))
    cluster = Cluster(folder, stack, secure=secure)
    try:
        cluster.start()
        addresses = cluster.addresses()
        print(json.dumps(addresses) if as_json else shown(addresses), flush=True)
        while True:
            cluster.check()
            time.sleep(_LOOK_S)  # nobody tells that one of several processes has ended; a signal ends the sleep
    finally:
        say("stopping")


def shown(addresses: Mapping[str, Any]) -> str:
    """Say where everything is, and what to type next."""
    with suppress(ValueError):
        addresses = {
            **addresses,
            "environment": Path(addresses["environment"]).relative_to(Path.cwd()),
            "logs": Path(addresses["logs"]).relative_to(Path.cwd()),
        }
    command = Path(tollgate()).parent
    rows = [
        ("management", " ".join(addresses["control"])),
        ("inference", " ".join(addresses["proxies"])),
        ("Kafka", addresses["kafka"]),
        ("PostgreSQL", addresses["database"]),
        ("Redis", addresses["redis"]),
        ("logs", addresses["logs"]),
        *((f"{name}'s ops port", url) for name, url in addresses["ops"].items()),
    ]
    is_new = addresses["is_new"]
    proxies = [f"--proxy {url}" for name, url in addresses["ops"].items() if name.startswith("proxy")]
    onboard = [
        "  tollgate workspace create --name lab --org-prefix your-org",
        "  tollgate workspace set-webhook --workspace lab --url https://...",
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join(
        [
            "Tollgate runs; Ctrl-C ends it, and the same command goes on with the same data.",
            *lines,
            "In another terminal:",
            f"  . {shlex.quote(str(addresses['environment']))}; PATH={shlex.quote(str(command))}:$PATH",
            *(onboard if is_new else ["  tollgate workspace list"]),
            f"  tollgate reconcile {' '.join(proxies)}",
            *_own(addresses["own"], addresses["environment"]),
            *(["Then README.md, \"Keep one\", shows the lab's and the developer's first calls."] if is_new else []),
        ]
    )


def _own(settings: Mapping[str, str], environment: Any) -> list[str]:
    """Say what stands in `environment` that others set to values of their own."""
    if not settings:
        return []
    names = {f"TOLLGATE_{name.upper()}": what for name, what in settings.items()}
    width = max(map(len, names))
    rows = [f"  {name:<{width}}  {what}" for name, what in names.items()]
    return [f"On your own services set, instead of what {environment} has:", *rows]


def tollgate() -> str:
    """Return the path of the command beside this interpreter."""
    return str(Path(sys.executable).with_name("tollgate"))


def say(text: str) -> None:
    """Tell the person at the terminal; stdout is for the addresses."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
