"""What a storage holds, as its backend lists it."""

from __future__ import annotations

from app.storage.storage import Storage


def jobs_with_folders(storage: Storage) -> set[str]:
    """Name the jobs that have folders."""
    return {found.key.split("/")[1] for found in storage.objects.list("folders/")}
