"""Which services of this machine are alive, so that a dead one's jobs need not wait for its lease to end."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import uuid
from pathlib import Path
from typing import IO

_LOCK = "lock"


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
        begun = (
            root / f".{self.folder.name}"
        )  # seen by no other before it is locked: it would be taken for dead
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
        shutil.rmtree(self._root / holder.replace(":", "+"), ignore_errors=True)

    def leave(self) -> None:
        """Remove the folder, and with it the lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._file.close()


def _lock(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
