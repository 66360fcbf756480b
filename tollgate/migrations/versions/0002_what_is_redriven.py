"""what a receiver's next success redrives

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema here."""
    with op.batch_alter_table('delivery') as batch_op:
        batch_op.add_column(sa.Column('first_died_at', sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column('redrive_after', sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table('webhook_receiver') as batch_op:
        batch_op.add_column(sa.Column('owes_redrive', sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column('redrive_at', sa.DateTime(timezone=True), nullable=True))
        batch_op.drop_column('redrive_from')
        batch_op.drop_column('redrive_to')
    op.execute(
        "UPDATE delivery SET first_died_at = settled_at,"
        " redrive_after = CASE WHEN reason LIKE 'answered 4%' THEN NULL ELSE settled_at END WHERE status = 'dead'"
    )
    op.execute("UPDATE webhook_receiver SET owes_redrive = true WHERE dead_in_row > 0")


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table('webhook_receiver') as batch_op:
        batch_op.add_column(sa.Column('redrive_to', sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column('redrive_from', sa.DateTime(timezone=True), nullable=True))
        batch_op.drop_column('redrive_at')
        batch_op.drop_column('owes_redrive')
    with op.batch_alter_table('delivery') as batch_op:
        batch_op.drop_column('redrive_after')
        batch_op.drop_column('first_died_at')
