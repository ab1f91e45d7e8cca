"""What is told of a finished file."""

import numpy as np
import onnx
import pytest

from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec
from tests.quant_core.export.networks import HEADER, parse


@pytest.mark.parametrize(("activations", "blamed"), [(8, True), ("float", False)])
def test_rounding_is_blamed_for_a_slow_file_where_something_is_rounded(
    activations, blamed, monkeypatch, tmp_path
):
    monkeypatch.setattr("quant_core.file_making.assessment._SLOWER", float("inf"))
    random = np.random.default_rng(0)
    net = parse(f"{HEADER} g (float[n,64] x) => (float[n,64] y) {{ y = MatMul(x, w) }}", w=(64, 64))
    onnx.save(net, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=random.standard_normal((16, 64)).astype(np.float32))
    request = {"effective_bits": 8, "effort": "fast", "activation_bits": activations, "float_islands": 0}
    report = quantize(
        tmp_path / "net.onnx", tmp_path / "data.npz", QuantizeSpec.model_validate(request), tmp_path / "out"
    )
    (told,) = (each for each in report.warnings if "of the float model's speed" in each)
    assert ("rounding activations costs" in told) == blamed
