"""What the service asks of a place that keeps files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Storage(Protocol):
    """Keeps files under keys such as `<job>/output/model.onnx`; a prefix is everything below such a key."""

    def publish(self, folder: Path, prefix: str) -> None:
        """Take over a folder: afterwards either all of its files are there, or none.

        Args:
            folder: A local folder; it is gone afterwards.
            prefix: Where its files go.
        """
        ...

    def fetch(self, prefix: str, folder: Path) -> None:
        """Make every file under a prefix available in a local folder, to be read only.

        Args:
            prefix: What to fetch.
            folder: Where to put it; it is made.
        """
        ...

    def find(self, key: str) -> Path | None:
        """Give a local path to one file.

        Args:
            key: The file.

        Returns:
            A path to read from, or None if there is no such file.
        """
        ...

    def remove(self, prefix: str) -> None:
        """Remove everything under a prefix; nothing happens if there is nothing.

        Args:
            prefix: What to remove.
        """
        ...

    def prefixes(self) -> frozenset[str]:
        """Name the first parts of all keys.

        Returns:
            The top-level prefixes, one for each job.
        """
        ...
