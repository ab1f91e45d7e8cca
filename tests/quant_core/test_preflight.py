"""The preflight says before a job what the job would find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.errors import ModelError
from quant_core.preflight import inspect_model
from quant_core.spec import Preflight

RESNET20 = Path(__file__).parents[2] / "benchmarks" / "data" / "resnet20_cifar10.onnx"


def _save(path, nodes, inputs, outputs, weights, domains=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", 21), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 10
    onnx.save(model, path)
    return path


def test_resnet20():
    found = inspect_model(RESNET20)
    assert found.float_bytes == RESNET20.stat().st_size
    assert len(found.layers) == 22
    assert found.parameters == 270_896
    assert sum(layer.macs for layer in found.layers) == pytest.approx(40.8e6, rel=0.005)
    assert found.float_weights == ()
    assert found.unsupported_operators == ()
    assert found.inputs[0].shape == ("batch", 3, 32, 32)
    assert found.outputs[0].name == "logits"
    # Two bits a weight and a scale a channel are less than the file, and all of it is more than the weights alone.
    assert found.parameters / 4 < found.smallest_bytes < 0.1 * found.float_bytes
    assert found.smallest_ratio == found.smallest_bytes / found.float_bytes
    assert Preflight.model_validate_json(found.model_dump_json()) == found


def test_float_weights_and_unsupported_operators_are_listed(tmp_path):
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((8, 8)).astype(np.float32),
        "shared": generator.standard_normal((8, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
        helper.make_node("MatMul", ["a", "shared"], ["b"], "both"),
        helper.make_node("Mul", ["b", "shared"], ["c"], "scale"),
        helper.make_node("NGramRepeatBlock", ["x", "c"], ["y"], "odd", domain="com.microsoft"),
    ]
    path = _save(tmp_path / "m.onnx", nodes, {"x": ["n", 8]}, {"y": ["n", 8]}, weights, ["com.microsoft"])
    found = inspect_model(path)
    assert [layer.name for layer in found.layers] == ["product"]
    assert found.layers[0].macs == 64
    assert [(weight.name, weight.parameters) for weight in found.float_weights] == [("shared", 64)]
    assert "Mul 'scale'" in found.float_weights[0].reason
    assert len(found.unsupported_operators) == 1
    assert "NGramRepeatBlock" in found.unsupported_operators[0]


def test_open_shapes_leave_macs_open(tmp_path):
    weights = {"w": np.ones((3, 3, 3, 3), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    shape = ["n", 3, "h", "w"]
    found = inspect_model(_save(tmp_path / "m.onnx", [node], {"x": shape}, {"y": shape}, weights))
    assert found.layers[0].macs is None
    assert found.inputs[0].shape == ("n", 3, "h", "w")


def test_model_without_layers(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    found = inspect_model(_save(tmp_path / "m.onnx", [node], {"x": ["n", 3]}, {"y": ["n", 3]}, {}))
    assert found.layers == ()
    assert found.smallest_bytes > 0


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        inspect_model(tmp_path / "m.onnx")
