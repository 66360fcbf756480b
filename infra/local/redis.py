"""A Redis server on this machine that keeps nothing on disk."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from infra.local import process
from infra.local.process import LocalError, Service


@dataclass
class Server(Service):
    """A server that is empty after each start."""

    more: Sequence[str] = ()
    """Further words of its command line: a port for TLS, say."""

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://{process.HOST}:{self.port}/0"

    def launch(self, logs: Path | None = None) -> None:
        """Start it without waiting."""
        program = which("redis-server")
        if program is None:
            raise LocalError("there is no redis-server")
        words = [program, "--port", str(self.port), "--bind", process.HOST, "--save", "", "--appendonly", "no"]
        words += ["--dir", str(self.folder), *self.more]
        self.started = process.start("Redis", words, (logs or self.folder) / "redis.log")

    def answers(self) -> bool:
        """Whether it answers a PING."""
        return answers(self.port)


def at(folder: Path, port: int | None = None, more: Sequence[str] = ()) -> Server:
    """Return a server of this folder that is not started yet; without a port, one on a free port."""
    folder.mkdir(parents=True, exist_ok=True)
    return Server(folder.resolve(), port or process.free_ports(1)[0], more)


def running(folder: Path, port: int | None = None, more: Sequence[str] = ()) -> AbstractContextManager[Server]:
    """Run a server for the length of a `with` block, its log in `folder`. Raise LocalError."""
    return process.running(at(folder, port, more))


def answers(port: int, host: str = process.HOST) -> bool:
    """Whether a server answers a PING there."""
    return process.ask(port, b"PING\r\n", 5, host) == b"+PONG"
