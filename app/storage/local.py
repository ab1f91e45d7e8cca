"""Objects as files in a local folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from app.storage.objects import Stored

_PARTS = "parts"
_TRIES = 8
_BLOCK = 2**20


class LocalObjects:
    """Keeps files below one folder; what is put there from the same file system is moved, not copied."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / _PARTS).mkdir(parents=True, exist_ok=True)

    def put(self, file: Path, key: str) -> None:
        """Move a file here.

        Args:
            file: The file; it is gone afterwards.
            key: Where it goes.
        """
        os.utime(file)
        if file.stat().st_dev != self._root.stat().st_dev:
            part = self._part()
            with _removed_on_error(part):
                shutil.copyfile(file, part)
            file.unlink()
            file = part
        self._place(file, key)

    def write(self, key: str, content: bytes) -> None:
        """Write something small.

        Args:
            key: Where it goes.
            content: The bytes.
        """
        part = self._part()
        with _removed_on_error(part):
            part.write_bytes(content)
        self._place(part, key)

    def read(self, key: str) -> bytes | None:
        """Read something small.

        Args:
            key: The object.

        Returns:
            Its bytes, or None if there is no such object.
        """
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            return None

    def fetch(self, key: str, file: Path) -> None:
        """Copy an object to a local file.

        Args:
            key: The object.
            file: The file to make.
        """
        # A copy, not a link of either kind: the engine refuses weights that may be changed or lie outside the folder.
        with _removed_on_error(file):
            shutil.copyfile(self._root / key, file)

    def find(self, key: str) -> Stored | None:
        """Look at an object.

        Args:
            key: The object.

        Returns:
            What is known of it, or None if there is none.
        """
        try:
            status = (self._root / key).stat()
        except FileNotFoundError:
            return None
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return Stored(key, status.st_size, modified, f"{status.st_ino}-{status.st_mtime_ns}")

    def path(self, key: str) -> Path | None:
        """Give the path of an object.

        Args:
            key: The object.

        Returns:
            Its path, or None if there is none.
        """
        path = self._root / key
        return path if path.is_file() else None

    def link(self, key: str) -> None:
        """Give no address: local files are sent by the service itself."""

    def ways_in(self, keys: Sequence[str]) -> None:
        """Give no addresses: local files are received by the service itself."""

    def stream(self, key: str) -> Iterator[bytes]:
        """Read something large.

        Args:
            key: The object.

        Yields:
            Its bytes, a block at a time.
        """
        with (self._root / key).open("rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def put_stream(self, blocks: Iterator[bytes], key: str) -> None:
        """Write something large.

        Args:
            blocks: The bytes.
            key: Where they go.
        """
        part = self._part()
        with _removed_on_error(part), part.open("wb") as out:
            for block in blocks:
                out.write(block)
        self._place(part, key)

    def list(self, prefix: str) -> Iterator[Stored]:
        """List objects.

        Args:
            prefix: A key's beginning, up to a slash.

        Yields:
            The objects below it.
        """
        for folder, _, names in os.walk(self._root / prefix):
            for name in names:
                found = self.find((Path(folder) / name).relative_to(self._root).as_posix())
                if found is not None:  # it was not removed in between
                    yield found

    def remove(self, key: str) -> None:
        """Remove an object, and the folders that this leaves empty.

        Args:
            key: The object.
        """
        path = self._root / key
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others are in it, or came in between
            for folder in path.relative_to(self._root).parents[:-1]:
                (self._root / folder).rmdir()

    def _part(self) -> Path:
        return self._root / _PARTS / uuid.uuid4().hex

    def _place(self, file: Path, key: str) -> None:
        target = self._root / key
        for attempt in range(_TRIES):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                file.replace(target)
            except FileNotFoundError:  # the folder became empty and was removed in between
                if attempt == _TRIES - 1 or not file.exists():
                    raise
            else:
                return


@contextmanager
def _removed_on_error(file: Path) -> Iterator[None]:
    """Where the disk is full, half a file would keep it so."""
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise
