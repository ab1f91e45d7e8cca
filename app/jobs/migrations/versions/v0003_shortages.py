"""How often memory ran out in a job."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("shortages", sa.Integer(), nullable=False, server_default="0"))
