"""Means over the places of an image become pools; onnxruntime says that the graph computes the same."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from quant_core.ingest import normalise

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
MEAN = "g (float[n,3,5,h] x) => (float[n,a,b,c] y) <int64[2] places = {2, 3}> { y = ReduceMean(x, places) }"
WITHOUT = MEAN.replace("ReduceMean(", "ReduceMean<keepdims=0>(").replace("[n,a,b,c]", "[n,a]")


def outputs(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def both(text, shape=(2, 3, 5, 7), dtype=np.float32):
    proto = onnx.parser.parse_model(HEADER + text)
    pooled = normalise(ir.from_proto(proto))
    x = (np.random.default_rng(0).standard_normal(shape) * 9).astype(dtype)
    ours = ir.to_proto(pooled)
    onnx.checker.check_model(ours, full_check=True)
    np.testing.assert_allclose(outputs(ours, x), outputs(proto, x), rtol=1e-5, atol=1e-6)
    return [node.op_type for node in pooled.graph]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (MEAN, ["GlobalAveragePool"]),
        (MEAN.replace("{2, 3}", "{-1, 2}"), ["GlobalAveragePool"]),
        (WITHOUT, ["GlobalAveragePool", "Flatten"]),
        (WITHOUT.replace("y = ", "m = ").replace("places) }", "places) y = Neg(m) }"), None),
    ],
)
def test_means_of_images_become_pools(text, left):
    assert both(text) == (left or ["GlobalAveragePool", "Flatten", "Neg"])


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        (MEAN.replace("{2, 3}", "{1, 2}"), (2, 3, 5, 7), np.float32),
        (MEAN.replace("[2] places = {2, 3}", "[1] places = {3}"), (2, 3, 5, 7), np.float32),
        (MEAN.replace("[n,3,5,h]", "[n,3,5,h,k]").replace("c] y", "c,d] y"), (2, 3, 5, 7, 2), np.float32),
        (MEAN.replace("float", "int32"), (2, 3, 5, 7), np.int32),
        (MEAN.replace("(x, places)", "<noop_with_empty_axes=1>(x)"), (2, 3, 5, 7), np.float32),
    ],
)
def test_other_means_stay(text, shape, dtype):
    assert set(both(text, shape, dtype)) <= {"ReduceMean", "Identity"}


def test_a_tensor_of_unknown_rank_stays():
    text = "g (float[n,3,5,h] x, int64[k] s) => (float[n,a] y) <int64[2] places = {2, 3}> "
    text += "{ r = Reshape(x, s) y = ReduceMean<keepdims=0>(r, places) }"
    operators = [
        node.op_type for node in normalise(ir.from_proto(onnx.parser.parse_model(HEADER + text))).graph
    ]
    assert operators == ["Reshape", "ReduceMean"]
