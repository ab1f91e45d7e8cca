"""What is compared on the zoo: samples that made a file never judge it, and every float output is judged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.made import Contestant, Made
from benchmarks.peers.tools import batch_of
from benchmarks.zoo_files import compare, decibels, loadable, split


@pytest.mark.parametrize(("count", "used", "judges"), [(9, 4, 5), (100, 32, 16)])
def test_samples_that_made_a_file_never_judge_it(count, used, judges, tmp_path):
    np.savez(tmp_path / "samples.npz", x=np.arange(count), labels=np.arange(count))
    path, others = split(tmp_path / "samples.npz", tmp_path / "kept")
    with np.load(path) as held:
        seen = {name: held[name] for name in held.files}
    assert set(others) == {"x"}
    assert (len(seen["x"]), len(others["x"])) == (used, judges)
    assert np.array_equal(seen["x"], seen["labels"])
    assert not set(seen["x"].tolist()) & set(others["x"].tolist())


def test_every_float_output_is_judged_over_all_runs():
    reference = [
        [np.array([3.0]), np.array([1]), np.array([1.0])],
        [np.array([4.0]), np.array([1]), np.array([2.0])],
    ]
    found = [
        [np.array([3.5]), np.array([2]), np.array([1.0])],
        [np.array([4.0]), np.array([2]), np.array([2.0])],
    ]
    first, second = decibels(reference, found)
    assert first == pytest.approx(20)
    assert second == 200


@pytest.mark.parametrize(("first", "second", "batch"), [("n", "n", 8), ("n", "1", 1), ("2", "4", 2)])
def test_runs_have_as_many_samples_as_every_input_takes(first, second, batch, tmp_path):
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[{first},3] x, float[{second},3] h) => (float[n,3] y) {{ y = Add(x, h) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    assert batch_of(tmp_path / "model.onnx", {"x": np.zeros((16, 3)), "h": np.zeros((16, 3))}, 8) == batch


def test_a_file_that_does_not_load_is_told(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    found = loadable(Made(Contestant("other", "dynamic"), tmp_path / "model.onnx", 1.0))
    assert found.path is None
    assert found.failure.startswith("does not load: ")


def test_models_without_samples_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BITWRIGHT_ZOO", str(tmp_path))
    (tmp_path / "silero-vad").mkdir()
    compare("silero-vad", 0.0)
    assert capsys.readouterr().out.split() == "silero-vad has runs with a state, no samples".split()
