"""usage alerts, and at which shares of a limit a lab asks for them

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = '0018'
down_revision = '0017'
branch_labels = None
depends_on = None


def text(length: int | None = None) -> sa.types.TypeEngine[str]:
    # Byte order on PostgreSQL, as in the first migration.
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column('webhook_settings', sa.Column('usage_alerts', sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
    op.create_table(
        'usage_alert',
        sa.Column('day', sa.Date(), nullable=False),
        sa.Column('group_id', text(), nullable=False),
        sa.Column('model_slug', text(), nullable=False),
        sa.Column('type', text(), nullable=False),
        sa.Column('unit', text(), nullable=False),
        sa.Column('threshold', sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column('share', sa.Integer(), autoincrement=False, nullable=False),
        sa.Column('id', text(36), nullable=False),
        sa.Column('workspace_id', text(), nullable=False),
        sa.Column('external_entity_id', text(), nullable=False),
        sa.Column('used', sa.BigInteger(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('delivery_id', text(36), nullable=True),
        sa.PrimaryKeyConstraint(
            'day', 'group_id', 'model_slug', 'type', 'unit', 'threshold', 'share', name=op.f('pk_usage_alert')
        ),
    )
    untold = sa.text('delivery_id IS NULL')
    op.create_index(
        'ix_usage_alert_untold', 'usage_alert', ['created_at'], unique=False,
        postgresql_where=untold, sqlite_where=untold,
    )  # fmt: skip
