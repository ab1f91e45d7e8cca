"""Blobs in a local folder."""

from __future__ import annotations

import shutil
from pathlib import Path


class LocalStorage:
    """Keeps files below one folder. Folders that are published must lie on the same file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def publish(self, folder: Path, prefix: str) -> None:
        """Take over a folder by renaming it.

        Args:
            folder: A local folder; it is gone afterwards.
            prefix: Where its files go.
        """
        target = self._root / prefix
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)

    def fetch(self, prefix: str, folder: Path) -> None:
        """Copy every file under a prefix into another folder; file systems that can share the bytes.

        Args:
            prefix: What to fetch.
            folder: Where to put it; it is made.
        """
        # Copies, not links of either kind: the engine refuses weights that may be changed or lie outside the folder.
        shutil.copytree(self._root / prefix, folder)

    def find(self, key: str) -> Path | None:
        """Give the path of one file.

        Args:
            key: The file.

        Returns:
            Its path, or None if there is no such file.
        """
        path = self._root / key
        return path if path.is_file() else None

    def remove(self, prefix: str) -> None:
        """Remove everything under a prefix.

        Args:
            prefix: What to remove.
        """
        if (self._root / prefix).exists():
            shutil.rmtree(self._root / prefix)

    def prefixes(self) -> frozenset[str]:
        """Name the folders at the top.

        Returns:
            The names.
        """
        return frozenset(path.name for path in self._root.iterdir())
