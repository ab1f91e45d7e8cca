"""The folder of a job is written whole or not at all, and a place that takes no files is the user's to change."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from pathlib import Path

import pytest

from quant_core.artifacts import check_place, whole_folder
from quant_core.errors import SpecError


def test_files_arrive_together_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(ZeroDivisionError), whole_folder(out) as folder:
        (folder / "model.onnx").write_text(str(1 // 0))
    assert list(tmp_path.iterdir()) == []
    with whole_folder(out) as folder:
        (folder / "model.onnx").write_text("whole")
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    assert (out / "model.onnx").read_text() == "whole"


def test_a_place_that_takes_no_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(SpecError, match="Read-only file system") as error, whole_folder(tmp_path / "out"):
        pass
    assert error.value.where == str(tmp_path / "out")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SpecError, match="not a folder"), whole_folder(tmp_path / "out"):
        pass


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("of an earlier job")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        with pytest.raises(OSError, match="File too large") as caught, whole_folder(tmp_path) as folder:
            (folder / "report.json").write_text("x" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handled)
    assert caught.value.filename in {str(tmp_path), tempfile.gettempdir()}
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of an earlier job"]


def test_a_job_replaces_earlier_results_and_nothing_else(tmp_path: Path) -> None:
    model, data = tmp_path / "model.onnx", tmp_path / "samples.npz"
    model.write_text("float")
    data.write_text("samples")
    check_place(tmp_path / "new", (model, data))
    with pytest.raises(SpecError, match="made of") as error:
        check_place(tmp_path, (model, data))
    assert error.value.where == str(model)
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").symlink_to(model)
    with pytest.raises(SpecError, match="made of"):
        check_place(out, (model, data))
    (out / "model.onnx").unlink()
    (out / "model.onnx").write_text("somebody's")
    with pytest.raises(SpecError, match="none of ours"):
        check_place(out, (model, data))
    (out / "report.json").write_text("{}")
    check_place(out, (model, data))
    (out / "costs.json").mkdir()
    with pytest.raises(SpecError, match="folder"):
        check_place(out, (model, data))


def test_a_model_arrives_after_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, to: (moved.append(path.name), replace(path, to))[1])
    with whole_folder(tmp_path / "out") as folder:
        for name in ("model.onnx", "report.json", "sensitivity.json"):
            (folder / name).write_text("")
    assert moved == ["report.json", "sensitivity.json", "model.onnx"]


def test_a_folder_whose_files_onnxruntime_cannot_open_is_refused(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path / "o") + b"\xff"))
    with whole_folder(folder) as made:  # made elsewhere, and moved there
        (made / "model.onnx").write_text("new")
    assert (folder / "model.onnx").read_text() == "new"
    with pytest.raises(SpecError, match="no UTF-8"), whole_folder(folder):
        pass
