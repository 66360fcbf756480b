"""A PostgreSQL server on this machine, from its own binaries, in a folder of its own."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from infra.local import process
from infra.local.process import LocalError, Service

_INITDB_S = 120
_USERS = ("postgres", "nobody")
"""Whom it may run as where we are root, best first."""
_ELSEWHERE = Path("/var/lib")
"""Where the data lie, behind a symbolic link, if that user cannot reach the folder that they belong in."""


@dataclass
class Server(Service):
    """A server of one folder."""

    durable: bool
    """Whether a commit is on disk when it returns; only tests may do without."""
    more: dict[str, str] = field(default_factory=dict)
    """Further settings of the server's."""
    options: str = ""
    """What ends its URL: libpq's words for TLS, say."""

    @property
    def url(self) -> str:
        """Where clients find it, as its superuser; no password, for it listens on this machine only."""
        return f"postgresql://postgres@{process.HOST}:{self.port}/postgres{self.options}"

    def launch(self, logs: Path | None = None) -> None:
        """Start it without waiting."""
        data = self.folder / "data"
        runs_as = user()
        if not (data / "PG_VERSION").exists():
            _make(self.folder, data, runs_as)
        settings = {
            "listen_addresses": process.HOST,
            "unix_socket_directories": "",
            "max_connections": "300",
            "fsync": "on" if self.durable else "off",
        } | self.more
        words = [binary("postgres"), "-D", str(data.resolve()), "-p", str(self.port)]
        words += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        log = (logs or self.folder) / "postgres.log"
        # SIGINT is its "fast" end: it closes its clients' connections instead of waiting for them.
        self.started = process.start("PostgreSQL", words, log, user=runs_as, stop_signal=signal.SIGINT)

    def answers(self) -> bool:
        """Whether it takes connections."""
        return answers(self.url)


def at(folder: Path, port: int | None = None, *, durable: bool = True) -> Server:
    """Return a server of this folder that is not started yet; without a port, one on a free port."""
    folder.mkdir(parents=True, exist_ok=True)
    return Server(folder.resolve(), port or process.free_ports(1)[0], durable)


def running(folder: Path, port: int | None = None, *, durable: bool = True) -> AbstractContextManager[Server]:
    """Run a server for the length of a `with` block, its data and log in `folder`. Raise LocalError."""
    return process.running(at(folder, port, durable=durable))


def answers(url: str) -> bool:
    """Whether a server takes connections there."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def binary(name: str) -> str:
    """Find one of PostgreSQL's binaries: the newest of Debian's, or one in PATH. Raise LocalError."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise LocalError(f"there is no {name}")
    return path


def user() -> int | None:
    """Return whom to run it as: nobody special where we are no root ourselves."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise LocalError(f"PostgreSQL does not run as root, and the system has no user {' or '.join(_USERS)}")


def _make(folder: Path, data: Path, user: int | None) -> None:
    shutil.rmtree(data.resolve(), ignore_errors=True)  # what a killed initdb left
    data.unlink(missing_ok=True)
    group = None if user is None else pwd.getpwuid(user).pw_gid
    if user is None or _reaches(folder, user):
        data.mkdir(mode=0o700)
    else:
        data.symlink_to(tempfile.mkdtemp(prefix="tollgate-postgres-", dir=_ELSEWHERE))
    if user is not None and group is not None:
        os.chown(data, user, group)
    words = [binary("initdb"), "-D", str(data.resolve()), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
    ended = subprocess.run(
        [*words, "--no-sync"],
        cwd="/",
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        timeout=_INITDB_S,
        check=False,
    )
    if ended.returncode != 0:
        shutil.rmtree(data.resolve(), ignore_errors=True)
        raise LocalError(f"PostgreSQL cannot make its data in {folder}:\n{(ended.stdout + ended.stderr)[-1500:]}")


def _reaches(folder: Path, user: int) -> bool:
    """Whether a user who is in no group comes through to `folder`; a root's own folders are often closed to others."""
    for path in (folder, *folder.parents):
        about = path.stat()
        if not about.st_mode & (stat.S_IXUSR if about.st_uid == user else stat.S_IXOTH):
            return False
    return True
