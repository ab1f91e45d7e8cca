"""What users declared of axes is kept."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper

from quant_core.ingest import normalise

N = helper.make_node


def test_axes_of_size_minus_one_are_unknown(run):
    # As PaddlePaddle's exporter writes them.
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [-1, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [-1, 2])
    graph = helper.make_graph([N("Relu", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    normal = normalise(ir.from_proto(model))
    for value in (*normal.graph.inputs, *normal.graph.outputs):
        assert not isinstance(value.shape[0], int)
        assert value.shape[1] == 2
    feeds = {"x": np.array([[-1, 2], [3, -4]], np.float32)}
    np.testing.assert_array_equal(run(normal, feeds)[0], np.maximum(feeds["x"], 0))


def test_outputs_keep_the_dynamic_axes_that_the_user_declared():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 3])
    outputs = {"named": ["rows", "width"], "open": [None, None], "sized": ["batch", 6], "wide": ["b", "c", 3]}
    nodes = [N("Flatten", ["x"], [name]) for name in ("named", "open", "sized")] + [
        N("Relu", ["x"], ["wide"])
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name, axes in outputs.items()]
    graph = helper.make_graph(nodes, "g", [x], given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    normal = normalise(ir.from_proto(model))
    found = {
        value.name: [size if isinstance(size, int) else size.value for size in value.shape]
        for value in normal.graph.outputs
    }
    assert found == outputs
