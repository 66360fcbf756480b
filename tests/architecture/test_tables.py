"""A table's SQL lies in one room: only the folder that declares a table names it."""

import ast
import re
from pathlib import Path

from tests.architecture import sources

SCHEMA = Path("tollgate/migrations")
"""Makes and changes every table."""


def modules() -> dict[Path, str]:
    packages = set(sources.project()["tool"]["coverage"]["run"]["source_pkgs"])
    return {
        path: (sources.ROOT / path).read_text(encoding="utf-8")
        for path in sources.modules()
        if path.parts[0] in packages and SCHEMA not in path.parents
    }


def declared(path: Path, text: str) -> dict[str, tuple[str, Path]]:
    """Return each table of a module by its name in the database: its name in Python, and the room."""
    found = {}
    for node in ast.parse(text).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == "Table"
        ):
            name = node.value.args[0]
            assert isinstance(name, ast.Constant)
            found[str(name.value)] = (ast.unparse(node.targets[0]), path.parent)
    return found


def named_elsewhere(texts: dict[Path, str]) -> list[str]:
    tables = {name: where for path, text in texts.items() for name, where in declared(path, text).items()}
    found = []
    for path, text in texts.items():
        used = {getattr(node, "attr", getattr(node, "id", None)) for node in ast.walk(ast.parse(text))}
        for name, (constant, room) in tables.items():
            if path.parent == room:
                continue
            imported = constant in used and declares(text, constant, room)
            if imported or re.search(rf"\b(FROM|INTO|UPDATE|JOIN)\s+{name}\b", text):
                found.append(f"{path}: {name}")
    return found


def declares(text: str, constant: str, room: Path) -> bool:
    """Whether `constant` comes from `room`: other rooms have other things of that name."""
    package = ".".join(room.parts)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {alias.name for alias in node.names}
            if node.module.startswith(f"{package}.") and constant in names:
                return True
            if node.module == package and re.search(rf"\b({'|'.join(names)})\.{constant}\b", text):
                return True
    return False


def test_a_tables_sql_lies_in_one_room() -> None:
    assert named_elsewhere(modules()) == []


def test_the_rule_sees_a_table_that_another_room_names() -> None:
    table = {Path("metering/store/events.py"): 'USAGE_EVENT = Table("usage_event", METADATA)'}
    assert (
        named_elsewhere(
            table | {Path("metering/store/pages.py"): "from metering.store.events import USAGE_EVENT\nUSAGE_EVENT"}
        )
        == []
    )
    for text in (
        "from metering.store.events import USAGE_EVENT\nselect(USAGE_EVENT)",
        "from metering.store import events\nselect(events.USAGE_EVENT)",
        'connection.exec_driver_sql("SELECT 1 FROM usage_event")',
    ):
        assert named_elsewhere(table | {Path("tollgate/doctor.py"): text}) == ["tollgate/doctor.py: usage_event"]
