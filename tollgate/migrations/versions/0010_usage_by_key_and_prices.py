"""daily usage by key, and prices

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None

FIGURES = ('requests', 'input_tokens', 'output_tokens', 'cached_input_tokens', 'corrections', 'corrected_input_tokens',
           'corrected_output_tokens')


def text(length: int | None = None) -> sa.types.TypeEngine[str]:
    # Byte order on PostgreSQL, as in the first migration.
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table('key_daily',
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('lane', text(), nullable=False),
    sa.Column('group_id', text(), nullable=False),
    sa.Column('api_key_prefix', text(), nullable=False),
    sa.Column('model_slug', text(), nullable=False),
    sa.Column('priced_day', sa.Date(), nullable=False),
    sa.Column('workspace_id', text(), nullable=False),
    sa.Column('external_entity_id', text(), nullable=False),
    *(sa.Column(name, sa.BigInteger(), nullable=False) for name in FIGURES),
    sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('day', 'lane', 'group_id', 'api_key_prefix', 'model_slug', 'priced_day', name=op.f('pk_key_daily'))
    )
    op.create_table('prices',
    sa.Column('workspace_id', text(26), nullable=False),
    sa.Column('prices', sa.JSON(), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['workspace_id'], ['workspaces.id'], name=op.f('fk_prices_workspace_id_workspaces')),
    sa.PrimaryKeyConstraint('workspace_id', name=op.f('pk_prices'))
    )
    # What was counted before is in the ledger. A correction takes the price of the day of the event it corrects.
    op.execute("""
        INSERT INTO key_daily
        SELECT e.day, 'before', e.group_id, e.api_key_prefix, e.model_slug, coalesce(c.day, e.day),
               min(e.workspace_id), min(e.external_entity_id),
               sum(CASE WHEN e.kind = 'usage' THEN 1 ELSE 0 END),
               sum(CASE WHEN e.kind = 'usage' THEN e.input_tokens ELSE 0 END),
               sum(CASE WHEN e.kind = 'usage' THEN e.output_tokens ELSE 0 END),
               sum(CASE WHEN e.kind = 'usage' THEN e.cached_input_tokens ELSE 0 END),
               sum(CASE WHEN e.kind = 'usage' THEN 0 ELSE 1 END),
               sum(CASE WHEN e.kind = 'usage' THEN 0 ELSE e.input_tokens END),
               sum(CASE WHEN e.kind = 'usage' THEN 0 ELSE e.output_tokens END),
               max(CASE WHEN e.kind = 'usage' THEN e.timestamp END)
        FROM usage_event e LEFT JOIN usage_event c ON c.idempotency_key = e.corrects
        GROUP BY e.day, e.group_id, e.api_key_prefix, e.model_slug, coalesce(c.day, e.day)
    """)
