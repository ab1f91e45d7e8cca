"""What scikit-learn's exporter writes around a network becomes standard operators that compute the same."""

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.quant_core.ingest.normalised import kept

ROWS = np.array([[0.5, -1.0, 3.0], [2.0, 0.25, -7.0]], np.float32)
WHOLE = np.array([[0, 7, 2], [3, 2, 0]], np.int64)
MISSING = np.where(ROWS < 0, np.float32("nan"), ROWS)


def both(op, feeds, stored=(), **attributes):
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), ["n", *array.shape[1:]]
        )
        for name, array in feeds.items()
    ]
    held = [onnx.numpy_helper.from_array(array, name) for name, array in stored]
    names = [*[name for name, _ in stored], *feeds]
    node = helper.make_node(op, names, ["y"], domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")], held)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)]
    proto = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    return {node.domain for node in kept(proto, feeds, 1e-6).graph}


@pytest.mark.parametrize(
    ("op", "feeds", "stored", "attributes"),
    [
        ("Scaler", {"x": ROWS}, (), {"offset": [1.0, 2.0, -1.0], "scale": [0.5, 3.0, 2.0]}),
        ("Scaler", {"x": WHOLE}, (), {"offset": [1.0], "scale": [0.25]}),
        (
            "Imputer",
            {"x": MISSING},
            (),
            {"imputed_value_floats": [1.0, 2.0, 3.0], "replaced_value_float": np.nan},
        ),
        ("Imputer", {"x": ROWS}, (), {"imputed_value_floats": [9.0], "replaced_value_float": 3.0}),
        ("OneHotEncoder", {"x": WHOLE}, (), {"cats_int64s": [0, 2, 3]}),
        ("OneHotEncoder", {"x": ROWS}, (), {"cats_int64s": [0, 2, 3]}),
        ("ArrayFeatureExtractor", {"x": np.array([2, 0, 1])}, (("classes", np.array([10, 20, 30])),), {}),
    ],
)
def test_what_stands_around_a_network_is_spelled_out(op, feeds, stored, attributes):
    assert both(op, feeds, stored, **attributes) == {""}


def test_picked_columns_are_spelled_out():
    feeds = {"x": ROWS, "i": np.array([[2, 0]])}
    assert both("ArrayFeatureExtractor", feeds) == {""}


def test_an_encoder_that_refuses_unknown_classes_stays():
    assert both("OneHotEncoder", {"x": WHOLE[:, :1]}, cats_int64s=[0, 3], zeros=0) == {"ai.onnx.ml"}
