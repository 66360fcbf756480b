"""When a group was changed last

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null means: not changed since before this column was there.
    op.add_column('groups', sa.Column('updated_at', sa.DateTime(timezone=True), nullable=True))
