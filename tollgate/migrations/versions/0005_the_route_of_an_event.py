"""the route of an event

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Byte order on PostgreSQL, as in the first migration. What an older metering writes came by the one route it knows.
    text = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.add_column('usage_event', sa.Column('route', text, server_default='chat.completions', nullable=False))
