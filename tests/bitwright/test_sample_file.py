"""Files that are to be sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitwright.errors import InvalidRequestError
from bitwright.sample_file import existing


def test_only_files_under_names_that_can_be_sent_are_taken(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path / "f") + b"\xff"))
    folder.mkdir()
    for name in (b"m\xc3\xbc.npz", b"m\xff.npz"):
        (folder / os.fsdecode(name)).write_bytes(b"")
    assert existing(folder / "mü.npz") == folder / "mü.npz"
    with pytest.raises(InvalidRequestError, match="no UTF-8"):
        existing(folder / os.fsdecode(b"m\xff.npz"))
    with pytest.raises(InvalidRequestError, match="no such file"):
        existing(folder / "none.npz")
