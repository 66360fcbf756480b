"""what a developer's key may have

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null means: never set, which is also what an older control leaves.
    op.add_column('api_keys', sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('api_keys', sa.Column('disabled', sa.Boolean(), nullable=True))
    op.add_column('api_keys', sa.Column('metadata', sa.JSON(none_as_null=True), nullable=True))
    op.add_column('api_keys', sa.Column('successor_prefix', sa.String(16), nullable=True))
