"""Experimental operators of early ONNX are written in operators of the standard, as onnxruntime runs them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quant_core.errors import UnsupportedOperatorError
from quant_core.ingest import find_layers, normalise, read_model
from quant_core.pipeline import quantize
from quant_core.spec import QuantizeSpec


def behind(floats, op, opset=7, kind=TensorProto.FLOAT, **attributes):
    """A convolution that reads one such operator."""
    nodes = [
        helper.make_node(op, ["x"], ["h"], "early", **attributes),
        helper.make_node("Conv", ["h", "w"], ["y"], "conv", pads=[1, 1, 1, 1]),
    ]
    weight = floats(16, 3, 3, 3).astype(helper.tensor_dtype_to_np_dtype(kind))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 3, 9, 8])],
        [helper.make_tensor_value_info("y", kind, ["n", 16, None, None])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Affine", {"alpha": 0.5, "beta": -2.0}),
        ("Affine", {}),
        ("Crop", {"border": [1, 2, 3, 1]}),
        ("Crop", {"border": [0, 2, 0, 0]}),
        ("Crop", {"border": [1, 2, 5, 5], "scale": [4, 3]}),
        ("ImageScaler", {"scale": 2.0, "bias": [1.0, -2.0, 3.0]}),
        ("ParametricSoftplus", {"alpha": 0.5, "beta": 2.0}),
        ("Scale", {"scale": 3.0}),
        ("ScaledTanh", {"alpha": 0.5, "beta": 2.0}),
    ],
)
def test_it_computes_the_same(op, attributes, opset, run, floats, tmp_path):
    model = behind(floats, op, opset, **attributes)
    onnx.save(model, tmp_path / "m.onnx")
    after = normalise(read_model(tmp_path / "m.onnx").model)
    assert [layer.name for layer in find_layers(after)] == ["conv"]
    feeds = {"x": floats(2, 3, 9, 8)}
    np.testing.assert_allclose(run(after, feeds)[0], run(model, feeds)[0], rtol=1e-5, atol=1e-5)


def test_a_job_in_half_precision(run, floats, tmp_path):
    model = behind(floats, "ImageScaler", 8, TensorProto.FLOAT16, scale=0.5, bias=[1.0, -2.0, 3.0])
    onnx.save(model, tmp_path / "m.onnx")
    x = floats(16, 3, 9, 8).astype(np.float16)
    np.savez(tmp_path / "x.npz", x=x)
    spec = QuantizeSpec.model_validate({"effective_bits": 8, "effort": "fast"})
    quantize(tmp_path / "m.onnx", tmp_path / "x.npz", spec, tmp_path / "out")
    wanted = run(model, {"x": x})[0].astype(np.float64)
    found = run(tmp_path / "out" / "model.onnx", {"x": x})[0]
    assert np.square(found - wanted).sum() < 1e-3 * np.square(wanted).sum()


def test_later_opsets_have_them_no_more(floats, tmp_path):
    onnx.save(behind(floats, "Scale", 10, scale=3.0), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedOperatorError, match="Scale"):
        read_model(tmp_path / "m.onnx")
