"""The import contracts of pyproject.toml hold."""

import subprocess
import sys
from pathlib import Path

from tests.architecture import sources


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, check=False, cwd=sources.ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contract_on_metering_names_each_of_its_modules_but_core() -> None:
    """import-linter cannot say "all but core": a module that is not named would be open to proxy and webhooks."""
    contracts = {each["name"]: each for each in sources.project()["tool"]["importlinter"]["contracts"]}
    named = contracts["proxy and webhooks reach only metering's core"]["forbidden_modules"]
    own = {path.with_suffix("").parts[1] for path in sources.modules() if path.parts[0] == "metering"}
    assert named == sorted(f"metering.{module}" for module in own - {"__init__", "core"})
