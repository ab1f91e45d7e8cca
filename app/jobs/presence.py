"""Which services of this machine are alive, so that a dead one's jobs need not wait for its lease to end."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO

_LOCK = "lock"
_COMING_AND_GOING = 3600.0
"""Seconds after which nobody still makes a folder, or removes it."""


class Presence:
    """A service's name, and a folder of its own that it keeps locked for as long as it lives."""

    def __init__(self, root: Path) -> None:
        """Make the folder and lock it.

        Args:
            root: Holds one folder for each service.
        """
        self._root = root
        self._host = socket.gethostname()
        self.holder = f"{self._host}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self.folder = root / self.holder.replace(":", "+")
        begun = _hidden(self.folder)  # seen by no other before it is locked: it would be taken for dead
        begun.mkdir(parents=True)
        self._file: IO[bytes] = (begun / _LOCK).open("ab")
        _lock(self._file)
        begun.rename(self.folder)

    def dead(self) -> tuple[str, ...]:
        """Find services of this machine that ended without a word.

        Returns:
            Their names; `bury` removes what they left.
        """
        found = []
        for folder in self._root.glob(f"{self._host}+*+*"):
            if folder == self.folder or not (folder / _LOCK).exists():
                continue
            with (folder / _LOCK).open("ab") as file:
                if _lock(file):
                    found.append(folder.name.replace("+", ":"))
        return tuple(found)

    def bury(self, holder: str) -> None:
        """Remove the folder of a dead service.

        Args:
            holder: Its name.
        """
        _remove(self._root / holder.replace(":", "+"))

    def tidy(self) -> None:
        """Remove what services of this machine left that were killed as they made a folder or removed it."""
        for folder in self._root.glob(f".{self._host}+*+*"):
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > _COMING_AND_GOING:
                    shutil.rmtree(folder, ignore_errors=True)

    def leave(self) -> None:
        """Remove the folder, and with it the lock."""
        _remove(self.folder)
        self._file.close()


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}")


def _remove(folder: Path) -> None:
    # Out of sight first: a folder whose lock is gone and whose files are not would be nobody's.
    with suppress(OSError):  # another service is at it
        folder.rename(_hidden(folder))
    shutil.rmtree(_hidden(folder), ignore_errors=True)


def _lock(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
