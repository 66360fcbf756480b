"""what is counted lies in parts by lane, and says how far it is told by offsets

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

_KEY = ('day', 'lane', 'group_id', 'model_slug')
_FIGURES = {
    'usage_daily': (
        'requests', 'input_tokens', 'output_tokens', 'cached_input_tokens',
        'corrections', 'corrected_input_tokens', 'corrected_output_tokens',
    ),
    'limit_daily': ('requests', 'tokens', 'input_tokens', 'output_tokens'),
}
_NEW = {'usage_daily': ('changed_at',), 'limit_daily': ('input_tokens', 'output_tokens', 'changed_at')}
"""0 in rows that are there: below every offset, and of what was not told apart."""


def text(length: int | None = None) -> sa.types.TypeEngine[str]:
    # Byte order on PostgreSQL, as in the first migration.
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    for table in _FIGURES:
        if op.get_bind().dialect.name == 'postgresql':
            _change(table)
        else:
            _make_anew(table)
        op.create_index(op.f(f'ix_{table}_group_id_day'), table, ['group_id', 'day'])
    with op.batch_alter_table('metering_position') as batch:
        batch.drop_column('published_offset')
        batch.drop_column('published_at')
        batch.add_column(sa.Column('told_offset', sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column('told_end', sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column('told_at', sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column('told_from_day', sa.Date(), nullable=True))
    op.drop_table('metering_mark')


def _change(table: str) -> None:
    op.drop_index(f'ix_{table}_lane_updated_at', table)
    for name in _NEW[table]:
        op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default='0'))
        op.alter_column(table, name, server_default=None)
    op.drop_constraint(f'pk_{table}', table, type_='primary')
    op.create_primary_key(f'pk_{table}', table, list(_KEY))
    op.execute(f'ALTER TABLE {table} SET (fillfactor = 80)')  # room to change a row in its page


def _make_anew(table: str) -> None:
    """SQLite changes no key."""
    owner = ('workspace_id', 'external_entity_id') if table == 'usage_daily' else ()
    op.create_table(
        f'{table}_anew',
        sa.Column('day', sa.Date(), nullable=False),
        sa.Column('lane', text(), nullable=False),
        sa.Column('group_id', text(), nullable=False),
        sa.Column('model_slug', text(), nullable=False),
        *(sa.Column(name, text(), nullable=False) for name in owner),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _FIGURES[table]),
        sa.Column('version', sa.BigInteger(), nullable=False),
        sa.Column('changed_at', sa.BigInteger(), nullable=False),
        sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(*_KEY, name=op.f(f'pk_{table}')),
    )
    names = [*_KEY, *owner, *_FIGURES[table], 'version', 'changed_at', 'updated_at']
    values = ['0' if name in _NEW[table] else name for name in names]
    op.execute(f"INSERT INTO {table}_anew ({', '.join(names)}) SELECT {', '.join(values)} FROM {table}")
    op.drop_table(table)
    op.rename_table(f'{table}_anew', table)
