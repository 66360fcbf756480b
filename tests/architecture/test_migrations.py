"""The migrations are one chain, for two that follow the same one would leave no way to upgrade; and they only add.

The release before goes on beside this one until `tollgate migrate --finish`. What takes something away is a migration's
`finish(connection)` (ADR 55).
"""

import ast
import re

import pytest
from alembic.script import ScriptDirectory

from tests.architecture import sources


def test_each_migration_follows_the_one_before_and_is_named_by_its_number() -> None:
    scripts = ScriptDirectory(str(sources.ROOT / "tollgate" / "migrations"))
    assert len(scripts.get_heads()) == 1
    files = sorted((sources.ROOT / "tollgate" / "migrations" / "versions").glob("0*.py"))
    chain = list(reversed(list(scripts.walk_revisions())))
    assert [file.name[:4] for file in files] == [script.revision for script in chain]
    assert [script.down_revision for script in chain] == [None, *(script.revision for script in chain[:-1])]


ONLY_ADDING_FROM = "0022"
ADDS = {"create_table", "create_index", "add_column", "f", "execute"}
TAKES = re.compile(r"\b(DROP|RENAME|ALTER|DELETE|TRUNCATE)\b", re.IGNORECASE)


def takes(source: str) -> list[str]:
    """Return what a migration's `upgrade` does that the release before may not survive."""
    (upgrade,) = [
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"
    ]
    return [ast.unparse(node) for node in ast.walk(upgrade) if isinstance(node, ast.Call) and _takes(node)]


def _takes(call: ast.Call) -> bool:
    if not (isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "op"):
        return False
    name, text = call.func.attr, ast.unparse(call)
    breaks_inserts = name == "add_column" and "nullable=False" in text and "server_default" not in text
    return name not in ADDS or breaks_inserts or (name == "execute" and TAKES.search(text) is not None)


def test_migrations_only_add() -> None:
    files = sorted((sources.ROOT / "tollgate" / "migrations" / "versions").glob("0*.py"))
    later = [file for file in files if file.name[:4] >= ONLY_ADDING_FROM]
    found = {file.name: takes(file.read_text(encoding="utf-8")) for file in later}
    assert {name: taken for name, taken in found.items() if taken} == {}


@pytest.mark.parametrize(
    "line",
    [
        "op.drop_column('delivery', 'reason')",
        "op.alter_column('delivery', 'reason', nullable=False)",
        "op.rename_table('delivery', 'sending')",
        "op.add_column('delivery', sa.Column('why', sa.String(), nullable=False))",
        "op.execute('drop table delivery')",
        "op.execute('ALTER TABLE delivery RENAME TO sending')",
        "op.batch_alter_table('delivery')",
    ],
)
def test_the_rule_sees_what_takes_away(line: str) -> None:
    assert takes(f"def upgrade():\n    {line}\ndef finish(connection):\n    pass\n")


@pytest.mark.parametrize(
    "line",
    [
        "op.add_column('delivery', sa.Column('why', sa.String(), nullable=True))",
        "op.add_column('delivery', sa.Column('why', sa.JSON(), nullable=False, server_default=sa.text('0')))",
        "op.create_table('sending', sa.Column('id', sa.String(), nullable=False))",
    ],
)
def test_the_rule_lets_what_adds_be(line: str) -> None:
    assert takes(f"def upgrade():\n    {line}\n") == []
