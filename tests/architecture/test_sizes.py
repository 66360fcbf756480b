"""A module has at most 350 lines, a function 40, a flow 250."""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture import sources

MODULE_LINES = 350
FUNCTION_LINES = 40
FLOW_LINES = 250


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def too_long(name: str, text: str) -> list[str]:
    tells = not name.startswith("tests/") and (name.endswith("/flow.py") or "/flow/" in name)
    allowed = FLOW_LINES if tells else MODULE_LINES
    lines = len(text.splitlines())
    found = [f"{name} has {lines} lines, {allowed} are allowed"] if lines > allowed else []
    found += [
        f"{name}: {function} has {length} lines, {FUNCTION_LINES} are allowed"
        for function, length in functions(ast.parse(text))
        if length > FUNCTION_LINES
    ]
    return found


def test_no_module_or_function_is_too_long() -> None:
    found = [
        line
        for path in sources.modules()
        for line in too_long(str(path), (sources.ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "lines", "found"),
    [
        ("store.py", MODULE_LINES, 0),
        ("store.py", MODULE_LINES + 1, 1),
        ("metering/flow.py", FLOW_LINES, 0),
        ("metering/flow.py", FLOW_LINES + 1, 1),
        ("control/flow/groups.py", FLOW_LINES + 1, 1),
    ],
)
def test_the_rule_sees_a_long_module(name: str, lines: int, found: int) -> None:
    assert len(too_long(name, "pass\n" * lines)) == found


def test_the_rule_sees_a_long_function() -> None:
    body = "    pass\n" * (FUNCTION_LINES - 1)
    assert not too_long("a.py", f"def f():\n{body}")
    assert too_long("a.py", f"async def f():\n{body}    pass\n")
