"""What the documentation names exists: files and folders in backticks, and every setting."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import settings
from tests.architecture import sources

CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SETTING = re.compile(rf"\b{settings.PREFIX}[A-Z0-9_]+")
PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
ENDINGS = {".py", ".md", ".toml", ".json", ".yaml", ".yml", ".lock", ".in", ".sh", ".conf", ".xml", ".lua"}
USERS_OWN = {settings.FILE_NAME}
"""Files that the reader makes."""
TEST_PREFIX = f"{settings.PREFIX}TEST_"

DOCS = [path for path in sources.files() if path.suffix == ".md" and path.parts[0] not in {"tests", "infra"}]
FILES = {path.as_posix() for path in sources.files()}
FOLDERS = {parent.as_posix() for path in sources.files() for parent in path.parents}


def expanded(code: str) -> list[str]:
    """Return each name that `a/{b,c}.py` stands for."""
    before, brace, rest = code.partition("{")
    inside, closing, after = rest.partition("}")
    return [f"{before}{name}{after}" for name in inside.split(",")] if brace and closing and "," in inside else [code]


def is_path(code: str) -> bool:
    """Whether a piece of code claims that a path exists: by its ending, or by where it begins."""
    top = code.split("/", maxsplit=1)[0]
    begins_here = "/" in code and (top in FILES or top in FOLDERS)
    return bool(PATH.fullmatch(code)) and (Path(code).suffix in ENDINGS or code.endswith("/") or begins_here)


def exists(code: str) -> bool:
    """Whether a path is ours, by its whole name or by its end."""
    name = code.rstrip("/")
    known = FOLDERS if code.endswith("/") else FILES | FOLDERS
    return code in USERS_OWN or any(path == name or path.endswith(f"/{name}") for path in known)


def missing_paths(text: str) -> Iterator[str]:
    for code in CODE.findall(FENCE.sub("", text)):
        for name in expanded(code.removeprefix("./")):
            if is_path(name) and not exists(name):
                yield name


def unknown_settings(text: str) -> Iterator[str]:
    known = {settings.PREFIX + name.upper() for name in settings.Settings.model_fields}
    return (name for name in SETTING.findall(text) if name not in known and not name.startswith(TEST_PREFIX))


@pytest.mark.parametrize("doc", DOCS, ids=str)
def test_docs_name_what_exists(doc: Path) -> None:
    text = (sources.ROOT / doc).read_text(encoding="utf-8")
    assert not list(missing_paths(text)), f"{doc} names paths that do not exist"
    assert not list(unknown_settings(text)), f"{doc} names settings that do not exist"


def test_there_is_documentation() -> None:
    assert {Path("README.md"), Path("ARCHITECTURE.md")} <= set(DOCS)


@pytest.mark.parametrize(
    "text",
    [
        "see `schemas/nothing.py`",
        "see `nothing.py`",
        "see `schemas/{usage,nothing}.py`",
        "in `nothing/`",
        "run `./infra/nothing`",
        "set `TOLLGATE_NOTHING=1`",
        "```\nexport TOLLGATE_NOTHING=1\n```",
    ],
)
def test_the_rule_sees_what_is_missing(text: str) -> None:
    assert [*missing_paths(text), *unknown_settings(text)]


@pytest.mark.parametrize(
    "text",
    [
        "`schemas/usage.py`, `usage.py`, `schemas/{usage,base}.py`, `schemas/`, `schemas/json`, `./run`",
        "`/v1/models`, `your-org/llama`, `https://example.com/a.json`, `tollgate.toml`, `POST /v1/a.json`",
        "`TOLLGATE_DATA_DIR` and `TOLLGATE_*`",
    ],
)
def test_the_rule_lets_the_rest_be(text: str) -> None:
    assert not [*missing_paths(text), *unknown_settings(text)]


CITED = {"contract": "docs/contract.md", "counting": "docs/counting.md"}
CITATION = re.compile(r"\b(contract|counting) (\d+(?:\.\d+)?(?:(?:, | and )\d+(?:\.\d+)?)*)\b(?!\.\d)")
ELSEWHERE = re.compile(r"\b[Ss]pec(?: section)? \d|\b[Dd]esign \d|\bthe spec(?:'s)?\b")
"""Pages that are not in the repository."""


def sections(name: str) -> set[str]:
    text = (sources.ROOT / CITED[name]).read_text(encoding="utf-8")
    return set(re.findall(r"^##+ (\d+(?:\.\d+)?)\.? ", text, re.MULTILINE))


def wrong_citations(text: str) -> Iterator[str]:
    for name, numbers in CITATION.findall(text):
        yield from (f"{name} {one}" for one in re.findall(r"\d+(?:\.\d+)?", numbers) if one not in sections(name))
    yield from (found.group() for found in ELSEWHERE.finditer(text))


def test_code_cites_sections_that_are_there() -> None:
    own = {path: (sources.ROOT / path).read_text(encoding="utf-8") for path in sources.modules()}
    wrong = {path.as_posix(): [*wrong_citations(text)] for path, text in own.items() if path.name != "test_docs.py"}
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    "text", ["contract 9", "(contract 2.1, 3.7)", "counting 4 and 12", "spec 3.1", "design 3.6", "the spec's"]
)
def test_the_rule_sees_a_citation_of_nothing(text: str) -> None:
    assert [*wrong_citations(text)]


def test_the_rule_lets_citations_be() -> None:
    assert not [
        *wrong_citations("contract 2.1, 3 and 4; counting 8; RFC 9112, section 5.2; an API's contract. 12 of 30")
    ]


def test_docstrings_say_return_and_not_give() -> None:
    """What gives a resource back may say so."""
    gives = re.compile(r'(?:"""|; )[Gg]ives? (?!.*\bback\b)')
    packages = set(sources.project()["tool"]["coverage"]["run"]["source_pkgs"])
    own = {path: (sources.ROOT / path).read_text("utf-8") for path in sources.modules() if path.parts[0] in packages}
    assert {path.as_posix(): gives.findall(text) for path, text in own.items() if gives.search(text)} == {}


def test_errors_that_docstrings_name_are_there() -> None:
    error = re.compile(r"\b[A-Z]\w*Error\b")
    packages = set(sources.project()["tool"]["coverage"]["run"]["source_pkgs"])
    known = set(dir(builtins))
    said: set[tuple[str, str]] = set()
    for path in sources.modules():
        if path.parts[0] not in packages:
            continue
        tree = ast.parse((sources.ROOT / path).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.alias):
                known.add(node.name.rpartition(".")[2])
            if isinstance(node, ast.Attribute):
                known.add(node.attr)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                said.update((path.as_posix(), name) for name in error.findall(ast.get_docstring(node) or ""))
    assert sorted((path, name) for path, name in said if name not in known) == []
