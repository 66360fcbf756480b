"""Makes the environments that clients run in, each with its own versions, and keeps them in `.tools/clients`.

Never installs what its lock file does not name with a hash. An environment is made once for each content of its lock.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.local import install
from tests.architecture import sources
from tests.support.services import INSTALL

LOCKS = Path(__file__).parent / "locks"
_MADE = sources.ROOT / ".tools" / "clients"
_INSTALL_WITHIN_S = 900
_JARS_ALONE = ("dependency:copy-dependencies", "-DexcludeTransitive=true")


def python(name: str) -> Path:
    """Return the interpreter of a Python environment: its lock file is `locks/NAME.lock`."""
    lock = LOCKS / f"{name}.lock"
    with _folder(name, lock) as (folder, is_made):
        interpreter = folder / "bin" / "python"
        if not is_made:
            _run(sys.executable, "-m", "venv", "--clear", str(folder))
            options = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "--disable-pip-version-check")
            _run(str(interpreter), "-m", "pip", "install", "--quiet", *options, "-r", str(lock))
    return interpreter


def node(name: str) -> Path:
    """Return the folder of a Node environment, into which its programs are to be put: modules are found from there."""
    source = LOCKS / name
    with _folder(name, source / "package-lock.json") as (folder, is_made):
        if not is_made:
            install.ensure("npm", install=bool(os.environ.get(INSTALL)))
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
    return folder


def java(name: str) -> Path:
    """Return the folder of the jars that a pom names with their versions: `locks/NAME/pom.xml`."""
    pom = LOCKS / name / "pom.xml"
    with _folder(name, pom) as (folder, is_made):
        if not is_made:
            shutil.rmtree(folder, ignore_errors=True)
            _run("mvn", "-q", "-B", "-f", str(pom), *_JARS_ALONE, f"-DoutputDirectory={folder}")
    return folder


def jars_of(project: Path) -> Path:
    """Bring the jars that a project's pom names; return their folder."""
    _run("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars", cwd=project)
    return project / "jars"


@contextmanager
def _folder(name: str, lock: Path) -> Iterator[tuple[Path, bool]]:
    """Hold an environment's folder alone, and tell whether what its lock file names is there; it is, after the body."""
    folder, mark = _MADE / name, _MADE / f"{name}.made"
    digest = hashlib.sha256(lock.read_bytes() + str(folder).encode()).hexdigest()
    _MADE.mkdir(parents=True, exist_ok=True)
    with (_MADE / f"{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        is_made = mark.exists() and mark.read_text(encoding="utf-8") == digest
        yield folder, is_made
        mark.write_text(digest, encoding="utf-8")


def _run(*command: str, cwd: Path | None = None) -> None:
    options: dict[str, Any] = {"cwd": cwd, "capture_output": True, "text": True, "timeout": _INSTALL_WITHIN_S}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
