"""What the service asks of a place that keeps bytes: a folder on this machine, or a bucket somewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Stored:
    """One object.

    Attributes:
        key: Its name.
        size: Its bytes.
        modified: When it was written, or last said to be in use.
        version: A word that is another once other bytes were written.
    """

    key: str
    size: int
    modified: datetime
    version: str


class Objects(Protocol):
    """Bytes under keys such as `contents/ab/ab12`. An object is there whole or not at all."""

    def put(self, file: Path, key: str) -> None:
        """Take over a local file.

        Args:
            file: The file; it is gone afterwards.
            key: Where it goes; what was there is replaced.
        """
        ...

    def write(self, key: str, content: bytes) -> None:
        """Write something small.

        Args:
            key: Where it goes; what was there is replaced.
            content: The bytes.
        """
        ...

    def read(self, key: str) -> bytes | None:
        """Read something small.

        Args:
            key: The object.

        Returns:
            Its bytes, or None if there is no such object.
        """
        ...

    def fetch(self, key: str, file: Path) -> None:
        """Copy an object to a local file.

        Args:
            key: The object.
            file: The file to make; its folder is there.

        Raises:
            FileNotFoundError: If there is no such object.
        """
        ...

    def find(self, key: str) -> Stored | None:
        """Look at an object.

        Args:
            key: The object.

        Returns:
            What is known of it, or None if there is none.
        """
        ...

    def path(self, key: str) -> Path | None:
        """Give the path of an object that is a local file.

        Args:
            key: The object.

        Returns:
            The path, to be read only; None if there is none.
        """
        ...

    def link(self, key: str) -> str | None:
        """Make an address that anyone may read an object from for a few minutes.

        Args:
            key: The object.

        Returns:
            The address; None where there are no such addresses.
        """
        ...

    def ways_in(self, keys: Sequence[str]) -> tuple[str, ...] | None:
        """Make addresses that anyone may write objects to for a few minutes.

        Args:
            keys: Where they go.

        Returns:
            An address for each; None where there are no such addresses.
        """
        ...

    def stream(self, key: str) -> Iterator[bytes]:
        """Read something large.

        Args:
            key: The object.

        Returns:
            Its bytes, a block at a time.
        """
        ...

    def put_stream(self, blocks: Iterator[bytes], key: str) -> None:
        """Write something large; where the blocks end with an exception, nothing is there and it is raised.

        Args:
            blocks: The bytes.
            key: Where they go.
        """
        ...

    def list(self, prefix: str) -> Iterator[Stored]:
        """List objects.

        Args:
            prefix: A key's beginning, up to a slash.

        Returns:
            The objects below it, in any order.
        """
        ...

    def remove(self, key: str) -> None:
        """Remove an object; nothing happens if there is none.

        Args:
            key: The object.
        """
        ...
