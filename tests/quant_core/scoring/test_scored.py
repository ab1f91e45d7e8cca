"""Sensitivities of an earlier job: taken over where they are this model's, refused where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from quant_core.analysis import analyze
from quant_core.calibration import Samples, split_samples
from quant_core.errors import SpecError
from quant_core.pipeline import quantize
from quant_core.scoring.rounded import apart
from quant_core.spec import AnalyzeSpec, QuantizeSpec, SensitivityTable
from tests.networks import drawn, network

SAMPLES = 32
GNB = {"sensitivity": "gnb", "effort": "fast"}
NET = """<ir_version: 8, opset_import: ["": 18]>
net (float[N,6] x) => (float[N,5] y) { h = MatMul(x, v) r = Tanh(h) s = MatMul(x, u) z = Add(r, s) y = MatMul(z, w) }"""


def write(path: Path, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    model = network(NET, drawn(random, {"v": (6, 16), "u": (6, 16), "w": (16, 5)}))
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analysis whose first samples leave no doubt about a class, while those that measure plans do."""
    folder = tmp_path_factory.mktemp("analysed")
    spec = AnalyzeSpec.model_validate(GNB)
    order = Samples({"x": np.arange(SAMPLES)})
    calibration, _ = split_samples(order, spec.held_back, spec.seed)
    _, unseen = apart(calibration, spec)
    first = calibration.inputs["x"][:4]
    assert not np.isin(unseen.inputs["x"][:4], first).all()
    x = 0.05 * np.random.default_rng(1).standard_normal((SAMPLES, 6)).astype(np.float32)
    x[first] *= 2e4
    np.savez(folder / "data.npz", x=x)
    table = analyze(write(folder / "net.onnx"), folder / "data.npz", spec, folder / "table")
    assert table.loss == "squared_error"
    return folder


def take_over(folder: Path, model: Path, out: Path) -> tuple[str, ...]:
    spec = QuantizeSpec.model_validate({"size": 1, "effort": "fast"})
    return quantize(model, folder / "data.npz", spec, out, earlier=folder / "table").warnings


def test_the_loss_is_told_by_the_samples_that_would_be_scored_with(analysed, tmp_path):
    warnings = take_over(analysed, analysed / "net.onnx", tmp_path / "out")
    assert not any("earlier version" in warning for warning in warnings)


def test_another_training_of_the_same_network_is_refused(analysed, tmp_path):
    with pytest.raises(SpecError, match="estimated with other weights"):
        take_over(analysed, write(tmp_path / "net.onnx", seed=1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", [False, True])
def test_other_samples_are_refused(analysed, tmp_path, labels):
    (tmp_path / "table").symlink_to(analysed / "table")
    x = np.load(analysed / "data.npz")["x"]
    if labels:
        np.savez(tmp_path / "data.npz", x=x, labels=np.zeros(SAMPLES, np.int64))
    else:
        np.savez(tmp_path / "data.npz", x=x[::-1])
    with pytest.raises(SpecError, match="estimated with other samples"):
        take_over(tmp_path, analysed / "net.onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["weights", "data"])
def test_a_table_that_does_not_tell_what_it_is_of_is_taken_with_a_warning(analysed, tmp_path, missing):
    path = analysed / "table" / "sensitivity.json"
    whole = path.read_text()
    table = SensitivityTable.model_validate_json(whole)
    try:
        path.write_text(table.model_copy(update={missing: None}).model_dump_json())
        warnings = take_over(analysed, analysed / "net.onnx", tmp_path / "out")
    finally:
        path.write_text(whole)
    assert any("earlier version" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "told"), [(None, "cannot be read"), ("{}", "not what a quantization of this")]
)
def test_a_folder_without_a_table_is_named_by_a_path(analysed, tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("sensitivity.json").write_text(text)
    spec = QuantizeSpec.model_validate({"size": 1, "effort": "fast"})
    with pytest.raises(SpecError, match=told) as refused:
        quantize(analysed / "net.onnx", analysed / "data.npz", spec, tmp_path / "out", earlier=Path())
    assert refused.value.where == "./sensitivity.json"  # which reads as no field of the request
    assert "rrno" not in str(refused.value)
