"""A forked process is a process as others are: its own settings and folder, its exit code, its signals, its output."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.forked import Forked

pytestmark = pytest.mark.slow


@pytest.fixture
def listening(tmp_path: Path) -> Forked:
    words = ("webhook", "listen", "--secret", "whsec_" + "A" * 32, "--json")
    running = processes.start(*words, settings={}, stderr=tmp_path / "log")
    assert running.stdout is not None
    with running.stdout as said:
        assert said.readline().startswith("{")
    assert isinstance(running, Forked)
    return running


def test_it_is_a_process_of_its_own_and_ends_by_the_signal_it_gets(listening: Forked) -> None:
    assert Path(f"/proc/{listening.pid}").is_dir()
    assert listening.pid != os.getpid()
    assert listening.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        listening.wait(0)
    listening.kill()
    assert listening.wait(processes.STOP_S) == -signal.SIGKILL
    listening.terminate()  # nothing is left to be told, and no other process has its id
    assert listening.returncode == -signal.SIGKILL


def test_it_has_the_folder_the_settings_and_the_exit_code_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = processes.answer("workspace", "create", "--name", "lab", "--org-prefix", "lab", "--data", "here")
    assert made["api_key"]
    assert (tmp_path / "here" / "tollgate.db").exists()
    listed = processes.run("workspace", "list", settings={"data_dir": "here"})
    assert listed.stdout.startswith("lab ")
    failed = processes.run("workspace", "list", "--data", "nowhere", check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"Error: there is no Tollgate data in {tmp_path / 'nowhere'}")
    with pytest.raises(subprocess.CalledProcessError):
        processes.run("workspace", "list", "--data", "nowhere")
