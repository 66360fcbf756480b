"""what is counted lies in parts by lane, and says how far it is told by offsets

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

_TABLES = ('usage_daily', 'limit_daily')


def upgrade() -> None:
    for table in _TABLES:
        # Below every offset: no part changed by a batch of this version yet.
        op.add_column(table, sa.Column('changed_at', sa.BigInteger(), nullable=False, server_default='0'))
    for name in ('input_tokens', 'output_tokens'):
        op.add_column('limit_daily', sa.Column(name, sa.BigInteger(), nullable=False, server_default='0'))
    for table in _TABLES:
        with op.batch_alter_table(table) as batch:
            batch.drop_index(f'ix_{table}_lane_updated_at')
            if op.get_bind().dialect.name == 'postgresql':
                batch.drop_constraint(f'pk_{table}', type_='primary')
            batch.create_primary_key(f'pk_{table}', ['day', 'lane', 'group_id', 'model_slug'])
            batch.alter_column('changed_at', server_default=None)
            if table == 'limit_daily':
                batch.alter_column('input_tokens', server_default=None)
                batch.alter_column('output_tokens', server_default=None)
            batch.create_index(f'ix_{table}_group_id_day', ['group_id', 'day'])
        if op.get_bind().dialect.name == 'postgresql':
            op.execute(f'ALTER TABLE {table} SET (fillfactor = 80)')  # room to change rows in their page
    with op.batch_alter_table('metering_position') as batch:
        batch.drop_column('published_offset')
        batch.drop_column('published_at')
        batch.add_column(sa.Column('told_offset', sa.BigInteger()))
        batch.add_column(sa.Column('told_end', sa.BigInteger()))
        batch.add_column(sa.Column('told_at', sa.DateTime(timezone=True)))
        batch.add_column(sa.Column('told_from_day', sa.Date()))
    op.drop_table('metering_mark')

