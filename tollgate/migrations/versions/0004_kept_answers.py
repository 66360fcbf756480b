"""answers that are kept for a repeated POST

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def text(length: int | None = None) -> sa.types.TypeEngine[str]:
    # Byte order on PostgreSQL, as in the first migration.
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table('kept_answers',
    sa.Column('name', text(64), nullable=False),
    sa.Column('workspace_id', text(26), nullable=False),
    sa.Column('body_sha256', text(64), nullable=False),
    sa.Column('sealed', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['workspace_id'], ['workspaces.id'], name=op.f('fk_kept_answers_workspace_id_workspaces')),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_kept_answers'))
    )
    op.create_index(op.f('ix_kept_answers_workspace_id_created_at'), 'kept_answers', ['workspace_id', 'created_at'], unique=False)
    op.create_index(op.f('ix_kept_answers_created_at'), 'kept_answers', ['created_at'], unique=False)
