"""What people type: the menu, the Makefile and `.ci/run` that forward to it, and the lock files it installs from."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.architecture import sources
from tests.clients import environments


def lines(name: str) -> list[str]:
    return (sources.ROOT / name).read_text(encoding="utf-8").splitlines()


def menu() -> set[str]:
    command = ["./run", "help"]
    printed = subprocess.run(command, check=True, cwd=sources.ROOT, capture_output=True, text=True, timeout=10).stdout
    return {line.split()[1] for line in printed.splitlines()}


def test_the_makefile_forwards_the_whole_menu() -> None:
    (targets,) = [line.partition("=")[2].split() for line in lines("Makefile") if line.startswith("TARGETS")]
    assert set(targets) == menu() | {"help"}


def test_an_unknown_command_is_refused_with_the_menu() -> None:
    result = subprocess.run(["./run", "dance"], check=False, cwd=sources.ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "no such thing as 'dance'" in result.stderr
    assert "./run test" in result.stderr


@pytest.mark.parametrize(("lock", "extras"), [("demo", ["demo"]), ("dev", ["demo", "dev"])])
def test_the_lock_files_hold_what_the_project_asks_for(lock: str, extras: list[str]) -> None:
    project = sources.project()["project"]
    wanted = {*project["dependencies"], *(name for extra in extras for name in project["optional-dependencies"][extra])}
    wanted |= {line for line in lines("requirements/build.in") if not line.startswith("#")}
    wanted = {re.sub(r"\[\w+\]", "", name) for name in wanted}  # what an extra brings is locked by its own name
    locked = {line.split()[0] for line in lines(f"requirements/{lock}.lock") if re.match(r"\w", line)}
    assert wanted <= locked, f"run ./run lock: {wanted - locked}"


@pytest.mark.parametrize("asked", sorted(environments.LOCKS.glob("*.in")), ids=lambda path: path.stem)
def test_the_lock_files_of_clients_hold_what_they_ask_for(asked: Path) -> None:
    given = asked.read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in given if line and not line.startswith("#")]
    lock = asked.with_suffix(".lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    missing = [str(one) for one in wanted if one.name not in locked or locked[one.name] not in one.specifier]
    assert not missing, f"run ./run lock: {missing}"


STANDS_FOR_RUN = """#!/bin/sh
echo "$1" >>asked
echo "the closing line of $1"
[ "$1" != "$FAILS" ]
"""


@pytest.mark.parametrize("fails", ["nothing", "lint", "types", "test", "test-more"])
def test_all_parts_are_run_before_a_change_is_taken_and_each_must_hold(tmp_path: Path, fails: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(sources.ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "run").write_text(STANDS_FOR_RUN, encoding="utf-8")
    (tmp_path / "run").chmod(0o755)
    environment = os.environ | {"FAILS": fails}
    command = [str(tmp_path / ".ci" / "run")]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=30)
    assert (tmp_path / "asked").read_text(encoding="utf-8").split() == ["setup", "lint", "types", "test", "test-more"]
    assert done.stdout.splitlines()[-1] == "the closing line of test-more"
    assert done.returncode == (0 if fails == "nothing" else 1)
