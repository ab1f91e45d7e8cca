"""Opens what services and operators work on: the database, the storage and the uploads that the settings name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from app.jobs.database import Database, sqlite_url
from app.settings import Settings
from app.storage import Storage, Uploads, open_storage
from quant_core.errors import UserError


class DataFolderError(UserError):
    """The data folder cannot be written to."""

    code = "data_folder"

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(
            f"the folder cannot be written to: {error.strerror}.",
            remedy="Name another one with --data-dir.",
            where=str(folder.absolute()),
        )


def open_database(settings: Settings) -> Database:
    """Open the database of the jobs.

    Args:
        settings: What the service is told from outside.

    Returns:
        The database.

    Raises:
        DataFolderError: If it is a file of the data folder, and there can be none.
    """
    if settings.database_url:
        return Database(settings.database_url)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFolderError(settings.data_dir, error) from error
    return Database(sqlite_url(settings.data_dir / "bitwright.sqlite"))


def open_files(settings: Settings) -> tuple[Storage, Uploads]:
    """Open what jobs are given and make, and what clients send ahead.

    Args:
        settings: What the service is told from outside.

    Returns:
        The storage and the uploads.
    """
    folder = settings.data_dir
    storage = open_storage(settings.storage_url, folder, settings.storage_public_endpoint or None)
    return storage, Uploads(storage, folder / "uploads", timedelta(hours=settings.upload_hours))
