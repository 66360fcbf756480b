"""One process of another program: started with its output in a file, awaited, stopped, killed by its id."""

import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

HOST = "127.0.0.1"
READY_S = 60
STOP_S = 30
_POLL_S = 0.05
_PORTS = range(20_000, 32_000)
"""Below the ports that the system gives to outgoing connections: a client that tries again and again while its server
is down would at last be given the server's own port, and the server could not start again."""


AnyService = TypeVar("AnyService", bound="Service")


class LocalError(Exception):
    """A program cannot be started or has ended; the message says why, with the end of its output."""


@dataclass
class Process:
    """A running program. `stop_signal` is what it takes as a request to end."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    _asked: bool = False

    def alive(self) -> bool:
        """Whether it still runs (or is paused)."""
        return self.popen.poll() is None

    def ask_to_stop(self) -> None:
        """Ask it to end, once: some programs end at once when they are asked again."""
        if not self._asked:
            self._asked = True
            self._signal(signal.SIGCONT)  # a paused program hears no request
            self._signal(self.stop_signal)

    def stop(self, within_s: float = STOP_S) -> int:
        """Ask it to end, and end it by force where it does not within the bound; return its exit code."""
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            return self.popen.wait(within_s)
        return self.kill()

    def kill(self) -> int:
        """End it as a power switch would, and all that it started; return its exit code."""
        self._signal(signal.SIGKILL)
        return self.popen.wait(STOP_S)

    def pause(self) -> None:
        """Let it stand still, its connections open: a machine that hangs. Returns when all its threads do."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # WNOWAIT: `popen` reaps it

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def tail(self, lines: int = 15) -> str:
        """Return the end of its output."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def until(self, ready: Callable[[], bool], within_s: float) -> None:
        """Wait until `ready`. Raise LocalError when the program ends before, or the bound is over."""
        deadline = time.monotonic() + within_s
        while not (is_ready := ready()) and self.alive() and time.monotonic() < deadline:
            time.sleep(_POLL_S)  # another program says nothing when it is ready; the loop is bounded
        if not self.alive():  # also where something answered: it was another's
            raise LocalError(f"{self.name} ended with exit code {self.popen.returncode}:\n{self.tail()}")
        if not is_ready:
            raise LocalError(f"{self.name} was not ready within {within_s:.0f} s:\n{self.tail()}")

    def _signal(self, number: signal.Signals) -> None:
        # To the whole group: what a killed program started must go with it. It has its own group (see `start`).
        if self.popen.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, number)


@dataclass
class Service(ABC):
    """A service in a folder of its own; it can be killed, paused and started again on the same port and data."""

    folder: Path
    port: int
    started: Process | None = field(default=None, repr=False, kw_only=True)

    @property
    def process(self) -> Process:
        """Its process. Raise LocalError before the first start."""
        if self.started is None:
            raise LocalError(f"{type(self).__name__} was not started")
        return self.started

    @abstractmethod
    def launch(self, logs: Path | None = None) -> None:
        """Start it without waiting; its log goes into `logs`, else into its own folder. Raise LocalError."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it takes requests now."""

    def await_ready(self, within_s: float = READY_S) -> None:
        """Wait until it takes requests. Raise LocalError."""
        self.process.until(self.answers, within_s)

    def start(self) -> None:
        """Start it and wait until it takes requests; the data of an earlier start are kept. Raise LocalError."""
        self.launch()
        self.await_ready()

    def stop(self) -> None:
        """End it cleanly, by force where it will not."""
        if self.started is not None:
            self.started.stop()


@contextmanager
def running(service: AnyService) -> Iterator[AnyService]:
    """Start a service and run it for the length of a `with` block. Raise LocalError."""
    try:
        service.start()
        yield service
    finally:
        service.stop()


def start(
    name: str,
    words: Sequence[str],
    log: Path,
    *,
    announcement: Path | None = None,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Process:
    """Start a program in a process group of its own (Ctrl-C must not end it before those that use it).

    Its output goes to the end of `log`; with `announcement`, what it prints to stdout goes there instead. `user` is the
    id it runs as, only for root. Where `setpriv` is there the program is killed when this process dies.
    """
    with log.open("ab") as output, (announcement or log).open("wb" if announcement else "ab") as stdout:
        popen = subprocess.Popen(
            [*_dies_with_us(), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=output,
            start_new_session=True,
            user=user,
            group=None if user is None else _group_of(user),
            extra_groups=None if user is None else [],
        )
    return Process(name, popen, log, stop_signal)


def _group_of(user: int) -> int:
    import pwd  # noqa: PLC0415 - not on every system, and needed only by root

    return pwd.getpwuid(user).pw_gid


def _dies_with_us() -> list[str]:
    # The kernel's signal comes when the starting *thread* ends, so it is asked for by the main thread only.
    by_main = threading.current_thread() is threading.main_thread()
    return ["setpriv", "--pdeathsig", "KILL", "--"] if by_main and shutil.which("setpriv") else []


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now; they stay free between a stop and a start (see _PORTS)."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):  # tests on several workers share a seed
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise LocalError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with closing(socket.socket()) as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


def ask(port: int, question: bytes, size: int, host: str = HOST) -> bytes:
    """Send bytes to a port; return at most `size` bytes of the answer, empty where nobody answers."""
    with suppress(OSError), closing(socket.create_connection((host, port), timeout=2)) as connection:
        connection.sendall(question)
        return connection.recv(size)
    return b""
