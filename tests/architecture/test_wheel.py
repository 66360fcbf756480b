"""What the wheel holds, and that it runs without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.architecture import sources

IMPORT_ALL = """
import importlib, sys
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.argv[1]), f"{name} comes from {module.__file__}"
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that no build folder in the checkout adds to it, and unpack it."""
    work = tmp_path_factory.mktemp("wheel")
    for path in sources.files():
        (work / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources.ROOT / path, work / "source" / path)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(work), str(work / "source")]
    built = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = work.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(work / "unpacked")
    return work / "unpacked"


def packages() -> list[str]:
    listed: list[str] = sources.project()["tool"]["setuptools"]["packages"]
    return listed


def test_holds_every_package_and_nothing_else(unpacked: Path) -> None:
    top = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {package.split(".")[0] for package in packages()}
    assert top.isdisjoint({"tests", "infra"})
    for package in packages():
        assert list((unpacked / package.replace(".", "/")).glob("*.py")), f"{package} is not in the wheel"
    assert sorted(path.name for path in unpacked.glob("schemas/json/*.json")) == sorted(
        path.name for path in sources.ROOT.glob("schemas/json/*.json")
    )


def test_every_package_of_the_checkout_is_listed() -> None:
    top = {package.split(".")[0] for package in packages()}
    found = {".".join(path.parent.parts) for path in sources.files() if path.suffix == ".py" and path.parts[0] in top}
    assert found == set(packages())


def test_imports_without_the_checkout(unpacked: Path) -> None:
    names = [
        ".".join(path.relative_to(unpacked).with_suffix("").parts).removesuffix(".__init__")
        for path in unpacked.rglob("*.py")
        if "migrations" not in path.parts  # alembic runs those, in its own surroundings
    ]
    assert "tollgate.cli.main" in names
    # Without `site`, so that the editable install cannot stand in for what the wheel lacks.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(unpacked), sysconfig.get_path("purelib")])}
    command = [sys.executable, "-S", "-c", IMPORT_ALL, str(unpacked), *names]
    result = subprocess.run(
        command, check=False, cwd=unpacked.parent, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_is_never_uploaded_by_mistake(unpacked: Path) -> None:
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    lines = metadata.read_text(encoding="utf-8").splitlines()
    assert "Classifier: Private :: Do Not Upload" in lines
    assert "Name: tollgate-gateway" in lines
