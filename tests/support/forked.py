"""`tollgate` processes forked from one that has the product imported: 0.1 s of CPU for each start instead of 1.3.

They are processes like those of the installed command, with a pid, an environment and a working directory of their own;
only their imports are done. Tests of the command itself start `processes.TOLLGATE`.
"""

import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

import tollgate.cli
import tollgate.reconciliation
import tollgate.reports
import tollgate.roles
from tollgate.cli import main

_FORKING = multiprocessing.get_context("forkserver")
_PRELOADED = [
    found.name
    for package in (tollgate.cli, tollgate.reconciliation, tollgate.reports, tollgate.roles)
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]
_FORKING.set_forkserver_preload(_PRELOADED)
_ONE_AT_A_TIME = threading.Lock()
"""Starting a process reaps others, and reaping one twice loses its exit code."""


class Forked:
    """A running process, with what tests use of `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], stdout: Path | None, stderr: Path) -> None:
        """Start it. Its stdout is `stdout`, or without one the pipe whose end is `self.stdout`."""
        self.args = tuple(words)
        stderr.touch()
        ours, theirs = _FORKING.Pipe(duplex=False)
        to = theirs if stdout is None else stdout
        asked = (self.args, dict(environment), str(Path.cwd()), to, stderr)
        self._process = _FORKING.Process(target=_become, args=asked)
        with _ONE_AT_A_TIME:
            self._process.start()
        theirs.close()
        self.stdout = os.fdopen(os.dup(ours.fileno()), encoding="utf-8") if stdout is None else None
        ours.close()

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal's number; None while it runs or nobody has asked."""
        return self.poll()

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        with _ONE_AT_A_TIME:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code. Raise `subprocess.TimeoutExpired` after `timeout` seconds."""
        if not wait([self._process.sentinel], timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal; a process that has ended gets none."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power switch would."""
        self.send_signal(signal.SIGKILL)


def _become(words: Sequence[str], environment: Mapping[str, str], cwd: str, out: Connection | Path, err: Path) -> None:
    """Be the command: what the shell and the interpreter's start would have set is set here."""
    lacking = set(_PRELOADED) - sys.modules.keys()
    assert not lacking, lacking  # an import that fails there is passed over without a word
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    with err.open("ab") as stderr:
        os.dup2(stderr.fileno(), sys.stderr.fileno())
    if isinstance(out, Path):
        with out.open("ab") as stdout:
            os.dup2(stdout.fileno(), sys.stdout.fileno())
    else:
        os.dup2(out.fileno(), sys.stdout.fileno())
        out.close()
    sys.argv = list(words)
    main.main()
