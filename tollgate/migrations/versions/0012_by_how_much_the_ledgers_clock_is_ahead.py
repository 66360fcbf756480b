"""by how much the ledger's clock is ahead of its source

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # An older metering leaves the value as it is.
    op.add_column('metering_position', sa.Column('ahead_us', sa.BigInteger(), server_default=sa.text('0'), nullable=False))
