"""The rules of the house: folders, names and ports, and what roles and `runtime/` know (ADR 30)."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tests.architecture import sources

MOST_MODULES = 15
MANY_COMMANDS = "tollgate/cli"
"""A file for each command: they are found by the command's name."""
ROLES = ("control", "embedded", "metering", "proxy", "webhooks")
FOREIGN_TO_RUNTIME = {"event", "delivery", "usage", "ledger", "billing", "webhook", "completion", "prompt", "tenant"}
"""Words of events and deliveries. "Request" is one more, except in `runtime/http`: HTTP has requests too."""


def product() -> list[Path]:
    packages = set(sources.project()["tool"]["coverage"]["run"]["source_pkgs"])
    return [path for path in sources.modules() if path.parts[0] in packages]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((sources.ROOT / path).read_text(encoding="utf-8"))


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for path in product():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                yield path, node


def words(name: str) -> set[str]:
    spaced = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return {word.removesuffix("s") for word in spaced.split("_") if word}


def crowded(paths: Sequence[Path]) -> dict[str, int]:
    held = Counter(path.parent.as_posix() for path in paths if path.name != "__init__.py")
    return {folder: count for folder, count in held.items() if count > MOST_MODULES and folder != MANY_COMMANDS}


def test_a_folder_holds_at_most_fifteen_modules() -> None:
    assert crowded([*product(), *(path for path in sources.modules() if path.parts[0] == "infra")]) == {}


def test_the_rule_sees_a_crowded_folder() -> None:
    assert crowded([Path(f"proxy/module_{number}.py") for number in range(MOST_MODULES)]) == {}
    assert crowded([Path(f"proxy/module_{number}.py") for number in range(MOST_MODULES + 1)]) == {"proxy": 16}


def test_a_class_name_means_one_thing() -> None:
    found = defaultdict(list)
    for path, node in classes():
        if not node.name.startswith("_"):  # nobody else sees those
            found[node.name].append(path.as_posix())
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_a_port_is_declared_once() -> None:
    """Two ports with the same methods, named and typed alike, are one that was written twice."""
    found = defaultdict(list)
    for path, node in classes():
        if any("Protocol" in ast.unparse(base) for base in node.bases):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found[tuple(sorted(f"{each.name}{ast.unparse(each.args)}" for each in methods))].append(
                f"{path.as_posix()}:{node.name}"
            )
    assert [ports for methods, ports in found.items() if methods and len(ports) > 1] == []


def works(text: str) -> list[str]:
    """Return what a role's module does itself: loops that wait, and statements for a database."""
    nodes = list(ast.walk(ast.parse(text)))
    loops = ["a loop that waits" for node in nodes if isinstance(node, ast.While | ast.AsyncFor)]
    loops += [
        "a loop that waits"
        for node in nodes
        if isinstance(node, ast.For) and any(isinstance(inner, ast.Await) for inner in ast.walk(node))
    ]
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in called}
    return loops + sorted(names & {"select", "insert", "update", "delete", "text", "execute", "exec_driver_sql"})


def test_roles_wire_and_no_more() -> None:
    """A role's module begins what others do: it waits in no loop of its own and knows no statement."""
    texts = {role: (sources.ROOT / "tollgate" / "roles" / f"{role}.py").read_text("utf-8") for role in ROLES}
    assert {role: found for role, text in texts.items() if (found := works(text))} == {}


def test_the_rule_sees_a_role_that_works() -> None:
    assert works("async def drain(self):\n while self.lag:\n  await sleep(1)") == ["a loop that waits"]
    assert works("async def drain(self):\n for one in self.all:\n  await one.end()") == ["a loop that waits"]
    assert works("database.read(lambda view: view.execute(select(TABLE)))") == ["execute", "select"]
    assert works("for name, work in works.items():\n spawn(name, work())") == []


def test_runtime_knows_no_request_no_event_and_no_delivery() -> None:
    found = []
    for path in product():
        if path.parts[0] != "runtime":
            continue
        named = {path.stem} | {
            node.name
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }
        foreign = FOREIGN_TO_RUNTIME if path.parts[1] == "http" else FOREIGN_TO_RUNTIME | {"request"}
        found += [f"{path}: {name}" for name in named if words(name) & foreign and name not in OF_OTHERS]
    assert found == []


OF_OTHERS = {"cloud_event", "cloud_events"}
"""CloudEvents, the standard for the headers of what is written to Kafka."""
