"""What counts as a constant."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.ingest.constant_tensors import constant_integers, constant_tensor, own_constant, stored_tensor

N = helper.make_node


@pytest.fixture
def model():
    """Reshapes x to `shape`, multiplies it by `factor` twice, and adds `given`, which a caller may replace."""
    nodes = [
        N("Reshape", ["x", "shape"], ["r"]),
        N("Mul", ["r", "factor"], ["m"]),
        N("Mul", ["m", "factor"], ["n"]),
        N("Add", ["n", "given"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "given")]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    arrays = {"shape": np.array([2, 2]), "factor": np.float32([2]), "given": np.float32([1])}
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return ir.serde.deserialize_model(
        helper.make_model(helper.make_graph(nodes, "g", inputs, [output], stored))
    )


def test_what_a_caller_may_give_is_no_constant(model):
    reshape, first, _, add = model.graph
    assert constant_tensor(add.inputs[1]) is None
    assert constant_tensor(reshape.inputs[0]) is None
    assert constant_tensor(None) is None
    assert float(constant_tensor(first.inputs[1]).numpy()[0]) == 2
    assert float(stored_tensor(model, "given").numpy()[0]) == 1


def test_a_shared_constant_belongs_to_no_node(model):
    reshape, first, _, _ = model.graph
    assert own_constant(first.inputs[1]) is None
    assert own_constant(reshape.inputs[1]) is not None
    assert constant_integers(reshape.inputs[1]) == [2, 2]
    assert constant_integers(first.inputs[0]) is None
