"""when a key was last used

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('key_daily', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_key_daily_group_id_api_key_prefix'), ['group_id', 'api_key_prefix'])
