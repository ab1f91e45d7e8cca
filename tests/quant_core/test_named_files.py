"""Files that are not there are refused by what is there instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quant_core.errors import ModelError, SamplesError
from quant_core.named_files import is_utf8, require_model_file, require_sample_file


def test_what_is_no_file_is_refused_by_what_it_is(tmp_path: Path) -> None:
    file, pipe = tmp_path / "m", tmp_path / "p"
    file.write_bytes(b"")
    os.mkfifo(pipe)
    require_model_file(file)
    require_sample_file(file)
    for path, said in (
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is a folder"),
        (pipe, "is no regular file"),
    ):
        with pytest.raises(ModelError, match=f"the model file {said}") as model:
            require_model_file(path)
        with pytest.raises(SamplesError, match=f"the sample file {said}") as samples:
            require_sample_file(path)
        assert (model.value.where, samples.value.where) == (str(path), str(path))


def test_names_that_no_report_can_hold_are_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path / "m") + b"\xff"))
    path.write_bytes(b"")
    assert is_utf8(tmp_path / "mü")
    for require, kind in ((require_model_file, ModelError), (require_sample_file, SamplesError)):
        with pytest.raises(kind, match="no UTF-8") as refused:
            require(path)
        assert "Rename" in refused.value.remedy
