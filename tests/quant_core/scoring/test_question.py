"""What estimators are asked."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from quant_core.calibration import Samples
from quant_core.errors import SamplesError
from quant_core.pipeline import quantize
from quant_core.scoring.question import asked
from quant_core.spec import AnalyzeSpec, QuantizeSpec
from tests.networks import drawn, network


@pytest.mark.parametrize(
    ("spec", "effort", "thrifty"),
    [
        (QuantizeSpec, "balanced", True),
        (QuantizeSpec, "best", True),
        (AnalyzeSpec, "balanced", True),
        (AnalyzeSpec, "best", False),
    ],
)
def test_a_quantization_scores_alike_at_every_effort_above_fast(monkeypatch, spec, effort, thrifty):
    monkeypatch.setattr("quant_core.scoring.question.find_objective", lambda *_: None)
    samples = Samples({"x": np.zeros((8, 2), np.float32)})
    program = SimpleNamespace(device=torch.device("cpu"))
    job = SimpleNamespace(
        program=program, layers=(), samples=samples, candidates={}, padding=None, batch_size=4
    )
    with asked(job, samples, {}, spec(effort=effort), lambda *_: None) as question:
        assert question.thrifty == thrifty
        assert question.samples == 8


NET = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,40] x) => (float[] y) { h = MatMul(x, w) r = Relu(h) s = MatMul(r, v) y = Squeeze(s) }"""


@pytest.mark.parametrize("count", [4, 8])
def test_one_sample_whose_axis_is_squeezed_away_is_too_few(count, tmp_path):
    random = np.random.default_rng(0)
    proto = network(NET, drawn(random, {"w": (40, 32), "v": (32, 1)}))
    onnx.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=random.standard_normal((count, 40)).astype(np.float32))
    paths, spec = (tmp_path / "net.onnx", tmp_path / "data.npz"), QuantizeSpec(size=0.4, effort="fast")
    if count == 8:
        assert quantize(*paths, spec, tmp_path / "out").metrics.sqnr_db > 10
    else:
        with pytest.raises(SamplesError, match="one sample is left to score with") as caught:
            quantize(*paths, spec, tmp_path / "out")
        assert "8 samples" in caught.value.remedy
