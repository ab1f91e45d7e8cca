"""What is fetched never replaces a model that no job wrote."""

from __future__ import annotations

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
