"""A module's docstring states an invariant ("Never ...") only where a test fails once it is broken (ADR 30).

Which test that is stands in `invariants.toml`. Whether it does fail, nobody but who breaks the code can tell.
"""

import ast
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.architecture import sources

TABLE = Path("tests/architecture/invariants.toml")
MOST = 120
"""Modules with an invariant: more are no rules that anybody remembers."""


def states_one(text: str) -> bool:
    """Whether a module's docstring says "Never" beyond its first paragraph."""
    described = ast.get_docstring(ast.parse(text)) or ""
    return any(re.search(r"\bNever\b", paragraph) for paragraph in described.split("\n\n")[1:])


def named(text: str) -> set[str]:
    """Return the tests of a file: its functions, and the cases that hypothesis makes of a state machine."""
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in found if name.startswith(("test_", "Test"))}


def unproved(modules: Iterable[str], tests: Mapping[str, Sequence[str]], known: Mapping[str, set[str]]) -> list[str]:
    """Return what is wrong with the table: `known` has the tests that there are, by their file."""
    stating = set(modules)
    wrong = [f"{module}: no test is named for its invariant" for module in stating if not tests.get(module)]
    wrong += [f"{module}: states no invariant" for module in tests if module not in stating]
    for module, ids in tests.items():
        for file, _, name in (one.partition("::") for one in ids):
            if name not in known.get(file, set()):
                wrong.append(f"{module}: {file} has no {name}")
    return sorted(wrong)


def test_each_invariant_has_a_test() -> None:
    packages = set(sources.project()["tool"]["coverage"]["run"]["source_pkgs"]) | {"infra"}
    texts = {path.as_posix(): (sources.ROOT / path).read_text(encoding="utf-8") for path in sources.modules()}
    stating = [path for path, text in texts.items() if path.split("/")[0] in packages and states_one(text)]
    table = tomllib.loads((sources.ROOT / TABLE).read_text(encoding="utf-8"))
    files = {one.partition("::")[0] for ids in table.values() for one in ids}
    assert unproved(stating, table, {file: named(texts[file]) for file in files if file in texts}) == []
    assert len(stating) <= MOST


def test_the_rule_sees_what_is_unproved() -> None:
    assert states_one('"""Sends.\n\nNever sends twice: keys are unique.\n"""')
    assert not states_one('"""Never mind the first line.\n\nIt reads no clock, and never waits.\n"""')
    known = {"tests/test_a.py": named("def test_it() -> None: ...\nTestAll = Machine.TestCase\nother = 1")}
    assert known == {"tests/test_a.py": {"test_it", "TestAll"}}
    assert unproved(["a.py"], {"a.py": ["tests/test_a.py::test_it", "tests/test_a.py::TestAll"]}, known) == []
    assert unproved(["a.py"], {}, known) == ["a.py: no test is named for its invariant"]
    for ids in ([], ["tests/test_a.py::test_gone"], ["tests/test_b.py::test_it"]):
        assert unproved(["a.py"], {"a.py": ids}, known) != []
    assert unproved([], {"a.py": ["tests/test_a.py::test_it"]}, known) == ["a.py: states no invariant"]
