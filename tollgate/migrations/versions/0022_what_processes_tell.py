"""what processes tell of themselves

Revision ID: 0022
Revises: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = '0022'
down_revision = '0021'
branch_labels = None
depends_on = None


def text(length: int | None = None) -> sa.types.TypeEngine[str]:
    """Return the type of a text that an index holds, in the order of its bytes."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        'process_status',
        sa.Column('process', text(26), primary_key=True),
        sa.Column('at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('record', sa.JSON(), nullable=False),
    )
    op.create_table(
        'status_lags',
        sa.Column('unit', text(6), primary_key=True),
        sa.Column('start', sa.DateTime(timezone=True), primary_key=True),
        sa.Column('process', text(26), primary_key=True),
        sa.Column('lags', sa.JSON(), nullable=False),
    )
    op.create_table(
        'status_calls',
        sa.Column('unit', text(6), primary_key=True),
        sa.Column('start', sa.DateTime(timezone=True), primary_key=True),
        sa.Column('workspace_id', text(26), primary_key=True),
        sa.Column('process', text(26), primary_key=True),
        sa.Column('calls', sa.JSON(), nullable=False),
    )
