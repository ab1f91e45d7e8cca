"""Until when a service is at calling a job's webhook."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("called_until", sa.Float()))
