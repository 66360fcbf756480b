"""hosts of workspaces

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Byte order on PostgreSQL, as in the first migration.
    def text(length: int) -> sa.types.TypeEngine[str]:
        return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")

    op.create_table(
        'workspace_hosts',
        sa.Column('host', text(253), nullable=False),
        sa.Column('workspace_id', text(26), nullable=False),
        sa.ForeignKeyConstraint(['workspace_id'], ['workspaces.id'], name=op.f('fk_workspace_hosts_workspace_id_workspaces')),
        sa.PrimaryKeyConstraint('host', name=op.f('pk_workspace_hosts')),
    )
    op.create_index(op.f('ix_workspace_hosts_workspace_id'), 'workspace_hosts', ['workspace_id'], unique=False)
