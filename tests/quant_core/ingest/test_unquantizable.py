"""Weights that stay float are listed with the reason, wherever they lie."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from quant_core.ingest import find_float_weights, find_layers, normalise

N = helper.make_node
INFO = helper.make_tensor_value_info


def _reasons(model):
    normal = normalise(ir.from_proto(model))
    return {weight.name: weight.reason for weight in find_float_weights(normal, find_layers(normal))}


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_biases_and_states_of_recurrent_nodes(op, build, floats):
    gates = 4 if op == "LSTM" else 3
    weights = {"w": floats(1, gates * 6, 5), "r": floats(1, gates * 6, 6), "b": floats(1, gates * 12)}
    node = N(op, ["x", "w", "r", "b", "", "h"], ["y"], "memory", hidden_size=6)
    reasons = _reasons(build([node], {"x": floats(7, 2, 5)}, weights | {"h": floats(1, 2, 6)}))
    assert set(reasons) == {"b", "h"}
    assert all(f"{op} 'memory'" in reason and "W and R alone" in reason for reason in reasons.values())


def test_one_tensor_for_both_recurrent_weights(build, floats):
    node = N("RNN", ["x", "w", "w"], ["y"], "memory", hidden_size=6)
    (reason,) = _reasons(build([node], {"x": floats(7, 2, 6)}, {"w": floats(1, 6, 6)})).values()
    assert "RNN 'memory'" in reason


def test_einsum_and_tables_read_along_two_axes(build, floats):
    nodes = [
        N("Einsum", ["f", "e"], ["a"], "sum", equation="ij,ij->ij"),
        N("Gather", ["c", "x"], ["b"], "pick", axis=1),
        N("Gather", ["c", "x"], ["d"], "also", axis=0),
        N("Gather", ["m", "x"], ["g"], "columns", axis=1),
        N("MatMul", ["f", "m"], ["h"], "times"),
        N("Sum", ["a", "b", "d", "g", "h"], ["y"]),
    ]
    inputs = {"f": floats(3, 3), "x": np.array([0, 1, 2])}
    weights = {"e": floats(3, 3), "c": floats(3, 3), "m": floats(3, 3)}
    reasons = _reasons(build(nodes, inputs, weights))
    assert "Einsum 'sum'" in reasons["e"]
    assert "MatMul" in reasons["e"]
    assert "Gather 'pick', Gather 'also'" in reasons["c"]
    assert "Gather 'columns', MatMul 'times'" in reasons["m"]
    assert all("axes" in reasons[name] for name in "cm")


def test_operators_of_other_domains(build, floats):
    node = N("FusedMatMul", ["x", "w"], ["y"], "fused", domain="com.microsoft", transA=1)
    model = build([node], {"x": floats(4, 4)}, {"w": floats(4, 3)})
    (reason,) = _reasons(model).values()
    assert "FusedMatMul 'fused'" in reason
    assert "com.microsoft" in reason


def _loop(build, floats, stored):
    body = helper.make_graph(
        [
            N("Identity", ["go"], ["goes"], "still"),
            N("MatMul", ["state", "w"], ["m"], "step"),
            N("Tanh", ["m"], ["next"], "bound"),
        ],
        "body",
        [INFO("i", 7, []), INFO("go", 9, []), INFO("state", 1, ["b", 30])],
        [INFO("goes", 9, []), INFO("next", 1, ["b", 30])],
    )
    if stored:
        body.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, (30, 30), floats(30, 30).ravel()))
    nodes = [
        N("MatMul", ["x", "v"], ["first"], "before"),
        N("Loop", ["k", "", "first"], ["y"], "turns", body=body),
    ]
    weights = {"v": floats(30, 30), "k": np.array(3)}
    if not stored:
        weights["w"] = floats(30, 30)
    model = build(nodes, {"x": floats(2, 30)}, weights)
    model.graph.output[0].CopyFrom(INFO("y", 1, ["batch", 30]))
    return model


@pytest.mark.parametrize("stored", [True, False])
def test_layers_inside_a_loop(stored, build, floats):
    """Whether the body holds the weight or reads that of the graph around it."""
    model = _loop(build, floats, stored)
    (reason,) = _reasons(model).values()
    assert "Loop 'turns'" in reason
    assert "from 1,024 values on" in reason
    normal = normalise(ir.from_proto(model))
    assert [layer.weight for layer in find_layers(normal)] == ["v"]


def test_scales_of_what_is_quantized_already(build, floats):
    node = N("DequantizeLinear", ["q", "s"], ["d"], "real", axis=0, block_size=2)
    nodes = [node, N("MatMul", ["x", "d"], ["y"], "product")]
    weights = {"q": np.ones((40, 40), np.int8), "s": floats(20, 40)}
    (reason,) = _reasons(build(nodes, {"x": floats(2, 40)}, weights)).values()
    assert "DequantizeLinear 'real', a part that is quantized already" in reason
