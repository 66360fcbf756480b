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


def upgrade() -> None:
    op.create_table(
        'request_record',
        sa.Column('request_id', sa.String(36), primary_key=True),
        sa.Column('workspace_id', sa.String(), nullable=False),
        sa.Column('record', sa.JSON(), nullable=False),
    )
    op.create_index(
        op.f('ix_request_record_workspace_id_request_id'), 'request_record', ['workspace_id', 'request_id']
    )
    op.create_table(
        'request_position',
        sa.Column('topic', sa.String(), primary_key=True),
        sa.Column('partition', sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column('next_offset', sa.BigInteger(), nullable=False),
    )
