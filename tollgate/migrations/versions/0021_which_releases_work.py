"""the oldest release that works with the schema

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = '0021'
down_revision = '0020'
branch_labels = None
depends_on = None


def text(length: int | None = None) -> sa.types.TypeEngine[str]:
    # Byte order on PostgreSQL, as in the first migration.
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        'schema_finished',
        sa.Column('revision', text(), nullable=False),
        sa.PrimaryKeyConstraint('revision', name=op.f('pk_schema_finished')),
    )
    op.execute("INSERT INTO schema_finished (revision) VALUES ('0021')")
