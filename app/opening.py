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


class NoServiceError(UserError):
    """No service has ever worked in the data folder."""

    code = "data_folder"

    def __init__(self, folder: Path) -> None:
        super().__init__(
            "no service has worked in this folder.",
            remedy="Name the service's own with --data-dir, or set BITWRIGHT_DATA_DIR as it is set there.",
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
    return Database(sqlite_url(_database_file(settings.data_dir)))


def require_database(settings: Settings) -> None:
    """Refuse to look after what is not there, such as in a folder whose name is mistyped.

    Args:
        settings: What the service is told from outside.

    Raises:
        NoServiceError: If the database is that of the data folder, and there is none.
    """
    if not has_database(settings):
        raise NoServiceError(settings.data_dir)


def require_files(settings: Settings) -> None:
    """Refuse to look after files that are not there.

    Args:
        settings: What the service is told from outside.

    Raises:
        NoServiceError: If they are those of the data folder, and there is none.
    """
    if not (settings.storage_url or settings.data_dir.is_dir()):
        raise NoServiceError(settings.data_dir)


def has_database(settings: Settings) -> bool:
    """Tell whether there is a database, or one that only asking would tell of.

    Args:
        settings: What the service is told from outside.

    Returns:
        False where it would be a file of the data folder that is not there.
    """
    return bool(settings.database_url) or _database_file(settings.data_dir).is_file()


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


def _database_file(folder: Path) -> Path:
    return folder / "bitwright.sqlite"
