"""How often a job's process was lost, apart from its service."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("processes_lost", sa.Integer(), nullable=False, server_default="0"))
