"""what counts against limits on costs; prices are told to the proxies

Revision ID: 0020
Revises: 0019
"""

import hashlib
import json
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = '0020'
down_revision = '0019'
branch_labels = None
depends_on = None

_PRICES = sa.table('prices', sa.column('workspace_id', sa.String), sa.column('prices', sa.JSON))
_VERSION = sa.table('config_version', sa.column('id', sa.Integer), sa.column('version', sa.BigInteger))
_CHANGE = sa.table(
    'config_change',
    sa.column('version', sa.BigInteger),
    sa.column('kind', sa.String),
    sa.column('id', sa.String),
    sa.column('record', sa.JSON),
    sa.column('created_at', sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    op.add_column('limit_daily', sa.Column('cost', sa.BigInteger(), nullable=False, server_default=sa.text('0')))
    _tell_prices()


def _tell_prices() -> None:
    """Write the prices that are there to the log of changes: whoever follows it has not heard of them."""
    connection = op.get_bind()
    now = datetime.now(UTC)
    version = connection.execute(sa.select(_VERSION.c.version).where(_VERSION.c.id == 1)).scalar_one()
    for workspace_id, prices in connection.execute(sa.select(_PRICES.c.workspace_id, _PRICES.c.prices)).all():
        for price in json.loads(prices) if isinstance(prices, str) else prices:
            version += 1
            parts = (workspace_id, price['slug'], price['from'], price['external_entity_id'] or '')
            name = hashlib.sha256('\0'.join(parts).encode()).hexdigest()
            record = {'workspaceId': workspace_id, 'price': price}
            row = {'version': version, 'kind': 'price', 'id': name, 'record': record, 'created_at': now}
            connection.execute(sa.insert(_CHANGE).values(row))
    connection.execute(sa.update(_VERSION).where(_VERSION.c.id == 1).values(version=version))
