"""A whole job for TensorRT with floating formats: what onnxruntime has no CPU kernel for is verified all the same."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto

from quant_core.evaluation import evaluate
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec
from tests.quant_core.export.networks import Net
from tests.quant_core.export.targets.test_gpu import EXTRA


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


@pytest.mark.parametrize("name", ["conv", "transformer"])
def test_activations_in_fp8_are_verified_behind_every_operator(name, tmp_path):
    # onnxruntime's rewrites make QLinearConv and MatMulIntegerToFloat of them, which take integers alone.
    net = Net(name)
    model, data, out = tmp_path / "model.onnx", tmp_path / "samples.npz", tmp_path / "out"
    onnx.save(ir.to_proto(net.model), model)
    samples = {name: np.concatenate([array] * 4) for name, array in net.feeds.items()}
    plain = onnxruntime.InferenceSession(model).run(["y"], samples)[0]
    labels = {"labels": plain.argmax(axis=-1)} if plain.ndim == 2 else {}
    np.savez(data, **samples, **labels)
    spec = QuantizeSpec(target="tensorrt", weight_format="fp8_e4m3", bits=[8], max_drop="sqnr>=15dB")
    report = quantize(model, data, spec, out)
    assert report.metrics.sqnr_db > 15
    assert report.band is not None
    assert min(found.value for found in report.band.evaluations) > 15
    if labels:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(out / "model.onnx", options)
        right = session.run(["y"], samples)[0].argmax(axis=-1) == labels["labels"]
        assert evaluate(out / "model.onnx", data).value == pytest.approx(right.mean())
