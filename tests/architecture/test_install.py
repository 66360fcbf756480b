"""`./run setup` installs what the lock file names and nothing else, whatever a registry has to offer besides."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.architecture import sources

BACKEND = """
import pathlib, shutil
def build_editable(folder, config_settings=None, metadata_directory=None):
    (wheel,) = pathlib.Path("built").glob("*.whl")
    return pathlib.Path(shutil.copy(wheel, folder)).name
"""
"""Builds the project from a wheel that is there: the machine's own setuptools would have to be installed first."""
PYTEST = """
import sys
print(*sys.argv[1:], sep="|")
sys.exit(5)
"""
"""Stands for pytest: says what it was asked for, and ends as pytest does when it has collected nothing."""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
_SETUP_S = 250
"""Longest wait for one `./run setup`: `python -m venv` alone takes 30 s on a busy machine."""

pytestmark = pytest.mark.timeout(3 * _SETUP_S)


def wheel(folder: Path, name: str, version: str, metadata: Iterable[str] = (), module: str = "") -> Path:
    """Write a wheel that holds one module. Return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata]
    files = {
        f"{name}.py": module,
        f"{about}/METADATA": "\n".join(head) + "\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (files | {f"{about}/RECORD": record}).items():
            archive.writestr(file, text)
    return path


class Checkout(NamedTuple):
    """A project with this house's `run` that needs the package `asks`, and the folder that stands for the registry.

    `asks` wants an extra of the package `offers`, as pytest-cov wants coverage[toml].
    """

    root: Path
    registry: Path

    @classmethod
    def at(cls, folder: Path) -> "Checkout":
        """Make one whose lock file is still to be written."""
        made = cls(folder / "checkout", folder / "registry")
        wheel(made.root / "built", "project", "1.0", ["Requires-Dist: asks==1.0"])
        (made.root / "backend.py").write_text(BACKEND, encoding="utf-8")
        (made.root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
        shutil.copy(sources.ROOT / "run", made.root / "run")
        return made

    def offer(self, name: str, version: str, metadata: Iterable[str] = (), module: str = "") -> str:
        """Put a wheel into the registry. Return the lock file's line for it."""
        content = wheel(self.registry, name, version, metadata, module).read_bytes()
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"

    def offer_asks(self) -> str:
        """Offer the package that the project needs. Return the lock file's line for it."""
        return self.offer("asks", "1.0", ["Requires-Dist: offers[more]>=1.0"])

    def offer_offers(self, version: str) -> str:
        """Offer a version of the package with an extra. Return the lock file's line for it."""
        return self.offer("offers", version, ["Provides-Extra: more"])

    def lock(self, *pins: str) -> None:
        """Write the lock file."""
        (self.root / "requirements").mkdir(exist_ok=True)
        (self.root / "requirements" / "dev.lock").write_text("".join(pins), encoding="utf-8")

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Do one of the menu's commands, as a newcomer would; no registry but the folder is asked."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTEST_"))}
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.registry), "PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(
            ["./run", *words],
            check=False,
            cwd=self.root,
            env=others | pip | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SETUP_S,
        )

    def installed(self) -> set[str]:
        """Return the packages in the virtual environment as name-version, without those it came with."""
        (packages,) = (self.root / ".venv").glob("lib/python3*/site-packages")
        found = {path.name.removesuffix(".dist-info") for path in packages.glob("*.dist-info")}
        return {name for name in found if name.partition("-")[0] not in {"pip", "setuptools"}}


class Attempt(NamedTuple):
    """A checkout, and how its first installation went."""

    checkout: Checkout
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory: pytest.TempPathFactory) -> Attempt:
    """An installation from a lock file that lacks a package, which the registry offers."""
    checkout = Checkout.at(tmp_path_factory.mktemp("install"))
    checkout.lock(checkout.offer_asks())
    checkout.offer_offers("1.0")
    return Attempt(checkout, checkout.run("setup"))


@pytest.fixture(scope="module")
def checkout(incomplete: Attempt) -> Checkout:
    """The same checkout, set up from a whole lock file beside a newer version of the package with an extra."""
    checkout = incomplete.checkout
    checkout.lock(checkout.offer_asks(), checkout.offer_offers("1.0"), checkout.offer("pytest", "1.0", module=PYTEST))
    checkout.offer_offers("2.0")
    done = checkout.run("setup")
    assert done.returncode == 0, done.stderr
    return checkout


def test_a_lock_file_that_lacks_a_package_is_refused_with_its_name(incomplete: Attempt) -> None:
    assert incomplete.done.returncode == 1
    assert "asks 1.0 requires offers, which is not installed" in incomplete.done.stderr


def test_a_newer_version_of_a_package_with_extras_is_not_looked_at(checkout: Checkout) -> None:
    assert checkout.installed() == {"asks-1.0", "offers-1.0", "project-1.0", "pytest-1.0"}


WORKERS = "-n|4|--dist|loadfile|--no-loadscope-reorder"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["test"], f"{WORKERS}|-m|not long"),
        (["test", "tests/unit", "-k", "a or b"], "tests/unit|-k|a or b"),
        (["test-more"], f"{WORKERS}|-m|long"),
        (["test-more", "tests/faults"], f"{WORKERS}|-m|long|tests/faults"),
    ],
)
def test_what_pytest_is_asked_for_and_that_nothing_collected_is_a_failure(
    checkout: Checkout, words: list[str], asked: str
) -> None:
    done = checkout.run(*words)
    assert done.stdout == f"{asked}\n"
    assert done.returncode == 5


def test_the_number_of_workers_can_be_named(checkout: Checkout) -> None:
    assert checkout.run("test", PYTEST_XDIST_AUTO_NUM_WORKERS="1").stdout.startswith("-n|1|")
