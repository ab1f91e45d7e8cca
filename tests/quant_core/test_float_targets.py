"""A whole job for TensorRT with floating formats: what onnxruntime has no CPU kernel for is verified all the same."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from quant_core.evaluation import evaluate
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec
from tests.quant_core.export.networks import Net
from tests.quant_core.export.test_gpu import EXTRA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bits", "least", "stored"),
    [("nvfp4", 4, 15, TensorProto.FLOAT4E2M1), ("fp8_e4m3", 8, 25, TensorProto.FLOAT8E4M3FN)],
)
def test_a_job_ends_with_a_verified_file(name, bits, least, stored, tmp_path):
    samples = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    model, data, out = tmp_path / "model.onnx", tmp_path / "samples.npz", tmp_path / "out"
    onnx.save(ir.to_proto(Net(EXTRA["tall"]).model), model)
    np.savez(data, x=samples)
    spec = QuantizeSpec(target="tensorrt", weight_format=name, bits=[bits], size=0.9)
    report = quantize(model, data, spec, out)
    assert {layer.weight_bits for layer in report.layers} == {bits}
    assert report.metrics.sqnr_db > least
    assert report.simulation.agreement_sqnr_db > 60
    file = onnx.load(out / "model.onnx")
    kinds = [tensor.data_type for tensor in file.graph.initializer]
    assert kinds.count(stored) >= 2
    labelled = tmp_path / "labelled.npz"
    np.savez(labelled, x=samples, labels=np.zeros(32, np.int64))
    assert evaluate(out / "model.onnx", labelled).samples == 32
