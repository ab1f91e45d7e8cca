"""Models that are small as files and endless as graphs are refused before anything walks over them."""

from __future__ import annotations

import time

import onnx
import pytest
from onnx import TensorProto, helper

from quant_core.errors import ModelError
from quant_core.executor import load
from quant_core.ingest import normalise, read_model
from quant_core.ingest.reading.graph_size import check_graph_size
from quant_core.spec.limits import MAX_NODES

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
IMPORTS = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]


def calls(levels: int, last: str | None = None, overload: str = "") -> onnx.ModelProto:
    """A chain of functions that each call the next twice."""
    functions = []
    for level in range(levels):
        below = f"f{level - 1}" if level else last
        nodes = [helper.make_node("Relu", ["a"], ["b"])]
        if below is not None:
            nodes = [
                helper.make_node(below, ["a"], ["m"], domain="local", overload=overload),
                helper.make_node(below, ["m"], ["b"], domain="local", overload=overload),
            ]
        functions.append(
            helper.make_function("local", f"f{level}", ["a"], ["b"], nodes, IMPORTS, overload=overload)
        )
    top = helper.make_node(f"f{levels - 1}", ["x"], ["y"], domain="local", overload=overload)
    graph = helper.make_graph([top], "g", [X], [Y])
    return helper.make_model(graph, opset_imports=IMPORTS, functions=functions, ir_version=10)


def decoys(levels: int) -> onnx.ModelProto:
    """A chain of functions behind harmless ones of the same names, from which only the overload tells them."""
    model = calls(levels, overload="other")
    for level in range(levels):
        node = helper.make_node("Relu", ["a"], ["b"])
        model.functions.append(helper.make_function("local", f"f{level}", ["a"], ["b"], [node], IMPORTS))
    return model


def branches(levels: int) -> onnx.ModelProto:
    """Branches within branches, each with two."""
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "inner", [], [Y])
    for _ in range(levels):
        node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "inner", [], [Y])
    graph = helper.make_graph(
        inner.node, "g", [X, helper.make_tensor_value_info("c", TensorProto.BOOL, [])], [Y]
    )
    return helper.make_model(graph, opset_imports=IMPORTS[:1], ir_version=9)


def axes(op: str, **attributes: str) -> onnx.ModelProto:
    """A chain in which every node doubles the axes of a tensor."""
    nodes = [helper.make_node(op, [f"t{i}", f"t{i}"], [f"t{i + 1}"], **attributes) for i in range(40)]
    inner = helper.make_function("local", "f", ["t0"], ["t40"], nodes, IMPORTS)
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, [2, 2]) for name in "xy"]
    nodes = [helper.make_node("f", ["x"], ["y"], domain="local")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=IMPORTS, functions=[inner], ir_version=9)


REFUSED = {
    "axes of Gather": (axes("Gather"), "axes"),
    "axes of Einsum": (axes("Einsum", equation="...a,...b->...ab"), "axes"),
    "doubling": (calls(40), f"{MAX_NODES} are allowed"),
    "doubling behind decoys": (decoys(40), f"{MAX_NODES} are allowed"),
    "recursion": (calls(3, last="f2"), "calls itself"),
    "deep calls": (calls(70), "nested more than"),
    "branches": (branches(12), "are allowed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_once(name, tmp_path):
    model, words = REFUSED[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    start = time.process_time()
    with pytest.raises(ModelError, match=words):
        read_model(path)
    with pytest.raises(ModelError, match=words):
        load(model)
    # What is refused only after it has been expanded takes minutes.
    assert time.process_time() - start < 10


def test_real_nesting_is_allowed(tmp_path):
    for model in (calls(8), branches(4)):
        check_graph_size(model)
        load(model)


def test_functions_that_nothing_calls_cost_nothing(tmp_path):
    model = calls(30)
    model.graph.node[0].CopyFrom(helper.make_node("Relu", ["x"], ["y"]))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    start = time.process_time()
    after = normalise(read_model(path).model)
    load(model)
    assert time.process_time() - start < 10
    assert [node.op_type for node in after.graph] == ["Relu"]
    assert not after.functions
