"""the parents of an event

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # PostgreSQL keeps a constant default once: no row is written anew.
    op.add_column('usage_event', sa.Column('parent_groups', sa.JSON(), nullable=False, server_default='[]'))
