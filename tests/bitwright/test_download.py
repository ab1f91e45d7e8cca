"""What is fetched never replaces a model that no job wrote, and a disk that is full is named by the file."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bitwright.errors import InvalidRequestError
from bitwright.operations.download import download


def test_a_model_without_a_report_is_kept(tmp_path: Path) -> None:
    info: Any = SimpleNamespace(kind="quantize", id="j1", spec=SimpleNamespace(spectrum=False))
    (tmp_path / "model.onnx").write_text("the float one")
    with pytest.raises(InvalidRequestError, match="none of ours") as error:
        next(download(info, tmp_path, 0))
    assert error.value.where == str(tmp_path / "model.onnx")
    (tmp_path / "report.json").write_text("{}")
    next(download(info, tmp_path, 0))
    info.kind = "analyze"
    (tmp_path / "report.json").unlink()
    next(download(info, tmp_path, 0))


def test_a_full_disk_is_named_by_the_file_and_leaves_no_part(tmp_path: Path) -> None:
    info: Any = SimpleNamespace(kind="quantize", id="j1", spec=SimpleNamespace(spectrum=False))
    (tmp_path / "report.json").write_text("of before")
    steps = download(info, tmp_path, 0)
    next(steps)
    with pytest.raises(OSError, match="No space left") as error:
        steps.throw(OSError(errno.ENOSPC, "No space left on device"))
    assert error.value.filename == str(tmp_path / "report.json")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of before"]
