"""Finds the project's own files."""

import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_MADE = {".git", ".venv", ".tools", "data", "build", "dist", "__pycache__"}


@cache
def files() -> tuple[Path, ...]:
    """Return every file of ours, relative to the root: what git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    else:  # an unpacked archive
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if _MADE.isdisjoint(path.parts)]
    return tuple(Path(name) for name in sorted(listed) if name and (ROOT / name).is_file())


def modules() -> tuple[Path, ...]:
    """Return our Python files, without the generated migrations."""
    return tuple(path for path in files() if path.suffix == ".py" and "versions" not in path.parts)


@cache
def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
