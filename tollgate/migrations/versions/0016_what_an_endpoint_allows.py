"""what an endpoint's model answers at most, and whether bodies may name objects at its upstream

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null means: never set, which is also what an older control leaves.
    op.add_column('endpoints', sa.Column('max_output_tokens', sa.Integer(), nullable=True))
    op.add_column('endpoints', sa.Column('upstream_objects', sa.Boolean(), nullable=True))
