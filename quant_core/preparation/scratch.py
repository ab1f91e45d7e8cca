"""A folder for copies of the float model."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class Scratch:
    """A folder that is removed with its owner.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="bitwright-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
