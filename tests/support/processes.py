"""Real `tollgate` processes for tests: started on free ports, awaited by what they announce, ended by their id."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from tests.support.forked import Forked

Process = Forked | subprocess.Popen[str]
INSTALLED = str(Path(sys.executable).with_name("tollgate"))
TOLLGATE = INSTALLED
"""What is started; a test may put another release in its place."""

START_S = 120
STOP_S = 120


def environment(**settings: str) -> dict[str, str]:
    """Return an environment without this machine's own settings; private addresses are allowed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    allowed = {"TOLLGATE_ALLOW_PRIVATE_UPSTREAMS": "true", "TOLLGATE_ALLOW_PRIVATE_RECEIVERS": "true"}
    return inherited | allowed | {f"TOLLGATE_{name.upper()}": value for name, value in settings.items()}


def run(
    *words: str,
    check: bool = True,
    settings: Mapping[str, str] = MappingProxyType({}),
    within_s: float = START_S,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        process = start(*words, settings=settings, stdout=stdout, stderr=stderr)
        try:
            code = process.wait(within_s)
        finally:
            process.kill()
        said = stdout.read_text(encoding="utf-8"), stderr.read_text(encoding="utf-8")
    ended = subprocess.CompletedProcess(process.args, code, *said)
    if check:
        ended.check_returncode()
    return ended


def start(*words: str, settings: Mapping[str, str], stderr: Path, stdout: Path | None = None) -> Process:
    """Start a command; without `stdout` its output comes through a pipe.

    Another release's, and one whose environment says where modules are found, does its own imports.
    """
    command, given = (TOLLGATE, *words), environment(**settings)
    if TOLLGATE == INSTALLED and "PYTHONPATH" not in given:
        return Forked(command, given, stdout, stderr)
    with stderr.open("ab") as errors, (stdout or Path(os.devnull)).open("ab") as output:
        to = subprocess.PIPE if stdout is None else output
        return subprocess.Popen(command, env=given, stdout=to, stderr=errors, text=True)


def answer(*words: str, settings: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Run a command with ``--json``; return what it printed."""
    printed: dict[str, Any] = json.loads(run(*words, "--json", settings=settings).stdout)
    return printed


@dataclass
class Server:
    """A running `tollgate` server and what it announced."""

    process: Process
    log: Path
    announced: dict[str, Any] = field(default_factory=dict)

    def kill(self) -> None:
        """End it as a power switch would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not stop within {STOP_S} s: {self.log.read_text()[-2000:]}") from None


@contextmanager
def server(log: Path, *words: str, **settings: str) -> Iterator[Server]:
    """Run a server for the length of a `with` block, its errors in `log`."""
    process = start(*words, "--json", settings=settings, stderr=log)
    started = Server(process, log)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise AssertionError(f"tollgate {' '.join(words)} did not start: {log.read_text()[-2000:]}")
        started.announced = json.loads(line)
        threading.Thread(target=_read_on, args=(process.stdout,), daemon=True).start()
        yield started
    finally:
        started.stop()


def _read_on(stream: IO[str]) -> None:
    """Take what a server prints: a full pipe would stop it."""
    with stream:
        for _ in stream:
            pass
