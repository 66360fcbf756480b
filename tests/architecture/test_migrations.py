"""The migrations are one chain: two that follow the same one would leave no way to upgrade."""

from alembic.script import ScriptDirectory

from tests.architecture import sources


def test_each_migration_follows_the_one_before_and_is_named_by_its_number() -> None:
    scripts = ScriptDirectory(str(sources.ROOT / "tollgate" / "migrations"))
    assert len(scripts.get_heads()) == 1
    files = sorted((sources.ROOT / "tollgate" / "migrations" / "versions").glob("0*.py"))
    chain = list(reversed(list(scripts.walk_revisions())))
    assert [file.name[:4] for file in files] == [script.revision for script in chain]
    assert [script.down_revision for script in chain] == [None, *(script.revision for script in chain[:-1])]
