"""Whole jobs on other grids than symmetric integers with a scale for each channel."""

import re

import numpy as np
import onnx
import pytest

from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec
from tests.quant_core.export.networks import HEADER, parse

NET = """g (float[n,8,10,10] x) => (float[n,10] y) {
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    d = Conv<kernel_shape=[3,3], strides=[2,2]>(r, w2)
    f = Flatten(d)
    y = Gemm<transB=1>(f, w3, b3)
}"""
SHAPES = {"w1": (32, 8, 3, 3), "b1": (32,), "w2": (32, 32, 3, 3), "w3": (10, 512), "b3": (10,)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    onnx.save(parse(HEADER + NET, **SHAPES), folder / "m.onnx")
    np.savez(folder / "s.npz", x=np.random.default_rng(0).standard_normal((48, 8, 10, 10)).astype(np.float32))
    return folder / "m.onnx", folder / "s.npz"


@pytest.mark.parametrize(
    ("options", "effective"),
    [
        ({"bits": [4], "weight_format": "nvfp4"}, 4.5),
        ({"bits": [4], "weight_format": "mxfp4", "rounding": "stochastic"}, 4.25),
        ({"bits": [8], "weight_format": "fp8_e4m3", "granularity": "tensor"}, 8),
        ({"bits": [3], "granularity": "block", "symmetric": False, "rounding": "nearest"}, 3 + 19 / 32),
    ],
    ids=str,
)
def test_a_job_writes_what_it_says(files, tmp_path, options, effective):
    spec = QuantizeSpec.model_validate({"size": 0.9, "device": "cpu", **options})
    report = quantize(*files, spec, tmp_path / "out", lambda _: None)
    weights = sum(layer.parameters for layer in report.layers)
    assert report.plan.costs["effective_bits"] == pytest.approx(effective)
    assert {layer.form for layer in report.layers} == {"weight_only"}
    nearest = "weight_format int" if "weight_format" in options else "(symmetric weights|granularity channel)"
    assert any(re.search(f"run in float.* nearest .*: {nearest}", warning) for warning in report.warnings)
    stored = report.model.quantized_bytes
    assert stored == (tmp_path / "out" / "model.onnx").stat().st_size
    assert effective * weights / 8 < stored < effective * weights / 8 + 3000
    assert report.simulation.agreement_sqnr_db > 60  # float arithmetic on the same numbers


def test_a_format_competes_with_integers(files, tmp_path):
    spec = QuantizeSpec.model_validate(
        {"effective_bits": 5.5, "bits": [2, 4, 8], "weight_format": "mxfp4", "device": "cpu"}
    )
    report = quantize(*files, spec, tmp_path / "out", lambda _: None)
    mean = sum({2: 2, 4: 4.25, 8: 8}[layer.weight_bits] * layer.parameters for layer in report.layers) / sum(
        layer.parameters for layer in report.layers
    )
    assert report.plan.costs["effective_bits"] == pytest.approx(mean)
    assert mean <= 5.5
    assert {layer.form for layer in report.layers if layer.weight_bits == 4} <= {"weight_only"}
    assert any("layers of 4 bits" in warning for warning in report.warnings)
