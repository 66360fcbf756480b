"""sessions and links of the console

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def text(length: int | None = None) -> sa.types.TypeEngine[str]:
    # Byte order on PostgreSQL, as in the first migration.
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table('console_sessions',
    sa.Column('sha256', text(64), nullable=False),
    sa.Column('workspace_id', text(26), nullable=True),
    sa.Column('key_prefix', text(16), nullable=True),
    sa.Column('begun_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['workspace_id'], ['workspaces.id'], name=op.f('fk_console_sessions_workspace_id_workspaces')),
    sa.PrimaryKeyConstraint('sha256', name=op.f('pk_console_sessions'))
    )
    op.create_index(op.f('ix_console_sessions_used_at'), 'console_sessions', ['used_at'], unique=False)
    op.create_table('console_links',
    sa.Column('sha256', text(64), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('sha256', name=op.f('pk_console_links'))
    )
