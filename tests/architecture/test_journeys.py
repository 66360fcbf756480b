"""The journeys that ARCHITECTURE.md tells as lists of `file:function` are there, and cross few packages."""

import ast
import re
from itertools import pairwise
from pathlib import PurePosixPath

import pytest

from tests.architecture import sources

STEP = re.compile(r"^- `([\w/.]+\.py):(\w+)`$", re.MULTILINE)
LIST = re.compile(r"(?:^- `[\w/.]+\.py:\w+`\n)+", re.MULTILINE)
BEGIN = {
    "runtime/http/connection.py",
    "proxy/topic/publisher.py",
    "webhooks/topic/consumer.py",
    "control/api/groups.py",
}
"""The files that the four journeys begin in."""
MOST_BORDERS = {"control/api/groups.py": 4}
"""By the file that a journey begins in."""

JOURNEYS = [STEP.findall(found) for found in LIST.findall((sources.ROOT / "ARCHITECTURE.md").read_text())]


def borders(journey: list[tuple[str, str]]) -> int:
    packages = [PurePosixPath(file).parts[0] for file, _ in journey]
    return sum(before != after for before, after in pairwise(packages))


def functions(file: str) -> set[str]:
    tree = ast.parse((sources.ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_four_journeys_are_told() -> None:
    assert {journey[0][0] for journey in JOURNEYS} == BEGIN


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: str(journey[0][0]))
def test_each_step_is_there_and_no_file_comes_twice_but_the_flow(journey: list[tuple[str, str]]) -> None:
    missing = [f"{file}:{name}" for file, name in journey if name not in functions(file)]
    assert missing == []
    files = [file for file, _ in journey if "flow" not in file]
    assert len(files) == len(set(files))
    assert borders(journey) <= MOST_BORDERS.get(journey[0][0], len(journey))
