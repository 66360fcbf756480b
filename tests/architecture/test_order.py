"""The order of the tests and Hypothesis' examples are new in each run, and a run's seed repeats them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis

from tests import conftest
from tests.architecture import sources


def collected(seed: int) -> list[str]:
    words = ["-m", "pytest", "--collect-only", "-q", f"--randomly-seed={seed}", "tests/unit/domain"]
    ended = subprocess.run([sys.executable, *words], cwd=sources.ROOT, capture_output=True, text=True, check=True)
    return [line for line in ended.stdout.splitlines() if "::" in line]


def test_a_seed_repeats_the_order_and_another_gives_another() -> None:
    order, other = collected(1), collected(2)
    assert collected(1) == order != other
    assert sorted(other) == sorted(order) != []


def item(path: str, *fixtures: str, slow: bool = False) -> Any:
    marked = SimpleNamespace() if slow else None
    return SimpleNamespace(path=Path(path), fixturenames=fixtures, get_closest_marker=lambda name: marked)


def test_the_files_that_take_longest_begin_and_the_rest_keeps_its_order() -> None:
    quick = [item("quick", "tmp_path"), item("other"), item("quick")]
    items = [
        *quick,
        item("sql", "place", "postgres"),
        item("broker", "kafka_broker", "kafka"),
        item("processes", "kafka_broker", slow=True),
        item("topics", "kafka"),
        item("topics"),
    ]
    conftest.pytest_collection_modifyitems(items)
    assert [one.path.name for one in items] == [
        "processes",
        "broker",
        "topics",
        "topics",
        "sql",
        "quick",
        "other",
        "quick",
    ]


def test_hypothesis_looks_for_new_examples_in_its_own_time_also_in_ci() -> None:
    used = hypothesis.settings()
    assert (used.derandomize, used.deadline, used.print_blob) == (False, None, True)
