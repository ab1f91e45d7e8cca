"""Brings tables of an earlier version to the last one."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def scripts() -> tuple[Config, ScriptDirectory]:
    """Find the versions.

    Returns:
        What Alembic is told, and what it finds.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config, ScriptDirectory.from_config(config)


def upgrade(connection: Connection, found: set[str]) -> bool:
    """Bring tables to the last version, in the transaction that is open.

    Args:
        connection: The database.
        found: The version they have; none where there are none of ours.

    Returns:
        False, and nothing is done, if that is no version of ours.
    """
    config, directory = scripts()
    if not found or not found <= {script.revision for script in directory.walk_revisions()}:
        return False
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return True
