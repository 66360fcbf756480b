"""The import contracts of pyproject.toml hold."""

import subprocess
import sys
from pathlib import Path

from tests.architecture import sources


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, check=False, cwd=sources.ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
