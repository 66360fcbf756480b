"""what became of requests

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = '0017'
down_revision = '0016'
branch_labels = None
depends_on = None


def text(length: int | None = None) -> sa.types.TypeEngine[str]:
    """Return the type of a text that an index holds, in the order of its bytes."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        'request_record',
        sa.Column('request_id', text(36), primary_key=True),
        sa.Column('workspace_id', text(), nullable=False),
        sa.Column('record', sa.JSON(), nullable=False),
    )
    op.create_index(
        op.f('ix_request_record_workspace_id_request_id'), 'request_record', ['workspace_id', 'request_id']
    )
    op.create_table(
        'request_position',
        sa.Column('topic', text(), primary_key=True),
        sa.Column('partition', sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column('next_offset', sa.BigInteger(), nullable=False),
    )
