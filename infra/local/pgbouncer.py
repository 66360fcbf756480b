"""A PgBouncer on this machine, in front of a PostgreSQL server: a pool in transaction mode."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from urllib.parse import urlsplit, urlunsplit

from infra.local import postgres, process
from infra.local.process import LocalError, Service


@dataclass
class Pooler(Service):
    """Lends its connections for a transaction each; stock settings beside `pool_mode` and `more`."""

    server: str
    """The URL of the server behind it, with the user that everyone becomes."""
    more: Mapping[str, str]

    def url(self, database: str) -> str:
        """Return where clients find a database of the server's."""
        return urlunsplit(urlsplit(self.server)._replace(netloc=f"postgres@{process.HOST}:{self.port}", path=database))

    def launch(self, logs: Path | None = None) -> None:
        """Start it without waiting."""
        program = which("pgbouncer", path="/usr/sbin:/usr/bin")
        if program is None:
            raise LocalError("there is no pgbouncer")
        place = urlsplit(self.server)
        behind = f"host={place.hostname} port={place.port} user={place.username}"
        behind += f" password={place.password}" if place.password else ""
        lines = {"listen_addr": process.HOST, "listen_port": str(self.port), "auth_type": "any", "unix_socket_dir": ""}
        lines |= {"pool_mode": "transaction"} | dict(self.more)
        path = self.folder / "pgbouncer.ini"
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        path.write_text(f"[databases]\n* = {behind}\n[pgbouncer]\n{text}", encoding="utf-8")
        path.chmod(0o644)
        log = (logs or self.folder) / "pgbouncer.log"
        self.started = process.start("PgBouncer", [program, str(path)], log, user=postgres.user())

    def answers(self) -> bool:
        """Whether it takes connections."""
        return postgres.answers(self.url("/postgres"))


def running(folder: Path, server: str, **more: str) -> AbstractContextManager[Pooler]:
    """Run one for the length of a `with` block. Raise LocalError."""
    folder.mkdir(parents=True, exist_ok=True)
    return process.running(Pooler(folder.resolve(), process.free_ports(1)[0], server, more))
