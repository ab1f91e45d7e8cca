"""Graphs that leave the batch open and take one sample a run are taken as if they fixed it at 1."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.artifacts import MODEL
from quant_core.errors import ModelError
from quant_core.pipeline import quantize
from quant_core.preparation import prepare
from quant_core.spec import QuantizeSpec

GENERATOR = np.random.default_rng(0)
SPEC = QuantizeSpec.model_validate({"effective_bits": 8, "effort": "fast", "device": "cpu"})


def save(path, steps, *, axes=("n", 16, 24)):
    """An LSTM between two reshapes that hold the sizes of one sample."""
    weights = {
        "steps": np.array(steps, np.int64),
        "w": GENERATOR.standard_normal((1, 128, 24)).astype(np.float32) / 4,
        "r": GENERATOR.standard_normal((1, 128, 32)).astype(np.float32) / 4,
        "flat": np.array([1, 16 * 32], np.int64),
        "m": GENERATOR.standard_normal((16 * 32, 10)).astype(np.float32) / 8,
    }
    nodes = [
        helper.make_node("Reshape", ["x", "steps"], ["s"]),
        helper.make_node("LSTM", ["s", "w", "r"], ["h"], "lstm", hidden_size=32),
        helper.make_node("Reshape", ["h", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [axes[0], 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_file_fixes_the_batch_at_1(tmp_path):
    save(tmp_path / "m.onnx", [16, 1, 24])
    x = GENERATOR.standard_normal((24, 16, 24)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    report = quantize(tmp_path / "m.onnx", tmp_path / "x.npz", SPEC, tmp_path / "out")
    assert any("one sample a run only" in warning for warning in report.warnings)
    float_model = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    ours = ort.InferenceSession(tmp_path / "out" / MODEL, providers=["CPUExecutionProvider"])
    assert ours.get_inputs()[0].shape[0] == 1
    wanted, found = (
        np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
        for session in (float_model, ours)
    )
    assert np.square(found - wanted).sum() < 1e-3 * np.square(wanted).sum()


@pytest.mark.parametrize("axes", [("n", 16, 24), (1, 16, 24)])
def test_a_model_that_runs_no_sample_is_refused_as_before(axes, tmp_path):
    save(tmp_path / "m.onnx", [16, 2, 24], axes=axes)
    np.savez(tmp_path / "x.npz", x=GENERATOR.standard_normal((8, 16, 24)).astype(np.float32))
    with pytest.raises(ModelError, match="onnxruntime cannot run the model"):
        prepare(tmp_path / "m.onnx", tmp_path / "x.npz", SPEC)
