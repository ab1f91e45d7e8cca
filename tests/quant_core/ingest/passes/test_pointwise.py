"""Convolutions over single places between transpositions become products."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quant_core.ingest import find_layers, normalise, read_model
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec

TURN = [0, 2, 1]


def between(floats, *, kernel=1, bias=False, groups=1, first=TURN, last=TURN, shared=False, **attributes):
    """Rows of 24 channels through a convolution of 32 in channels-first order."""
    stored = {"w": floats(32, 24 // groups, kernel)} | ({"b": floats(32)} if bias else {})
    nodes = [
        helper.make_node("Transpose", ["x"], ["s"], perm=first),
        helper.make_node("Conv", ["s", *stored], ["c"], "conv", group=groups, **attributes),
        helper.make_node("Transpose", ["c"], ["y"], perm=last),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 20, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        + ([helper.make_tensor_value_info("c", TensorProto.FLOAT, None)] if shared else []),
        [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("attributes", [{}, {"auto_pad": "SAME_UPPER"}, {"dilations": [3]}])
def test_they_become_products(bias, attributes, run, floats, tmp_path):
    model = between(floats, bias=bias, **attributes)
    onnx.save(model, tmp_path / "m.onnx")
    after = normalise(read_model(tmp_path / "m.onnx").model)
    assert [node.op_type for node in after.graph] == ["MatMul", "Add"][: 1 + bias]
    assert [layer.name for layer in find_layers(after)] == ["conv"]
    feeds = {"x": floats(3, 20, 24)}
    np.testing.assert_allclose(run(after, feeds)[0], run(model, feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 3},
        {"strides": [2]},
        {"pads": [1, 0]},
        {"groups": 4},
        {"last": [2, 0, 1]},
        {"shared": True},
    ],
)
def test_what_is_more_than_a_product_stays(options, run, floats, tmp_path):
    model = between(floats, **options)
    onnx.save(model, tmp_path / "m.onnx")
    after = normalise(read_model(tmp_path / "m.onnx").model)
    assert "Conv" in [node.op_type for node in after.graph]
    feeds = {"x": floats(3, 20, 24)}
    for found, wanted in zip(run(after, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_loud_and_silent_samples_are_rounded_alike(run, floats, tmp_path):
    model = between(floats)
    onnx.save(model, tmp_path / "m.onnx")
    x = floats(48, 20, 24)
    x[::2] /= 300
    np.savez(tmp_path / "x.npz", x=x)
    spec = QuantizeSpec.model_validate({"effective_bits": 8, "effort": "fast"})
    quantize(tmp_path / "m.onnx", tmp_path / "x.npz", spec, tmp_path / "out")
    for row in x[:4]:
        wanted = run(model, {"x": row[None]})[0]
        found = run(tmp_path / "out" / "model.onnx", {"x": row[None]})[0]
        assert np.square(found - wanted).sum() < 1e-3 * np.square(wanted).sum()
