"""Walks over the bodies of If, Loop and Scan."""

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from quant_core.ingest.subgraphs import bodies, body_protos, names_inside, node_protos, read_inside

N = helper.make_node


def _graph(nodes, outputs, inputs=()):
    def info(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    return helper.make_graph(nodes, "g", [info(name) for name in inputs], [info(name) for name in outputs])


@pytest.fixture
def nested():
    """An If that reads x and y, with another If inside its branch that reads z."""
    inner = N("If", ["c"], ["p"], "inner", then_branch=_graph([N("Neg", ["z"], ["m"], "neg")], ["m"]),
              else_branch=_graph([N("Abs", ["z"], ["a"], "abs")], ["a"]))  # fmt: skip
    outer = N("If", ["c"], ["o"], "outer", then_branch=_graph([inner, N("Add", ["p", "x"], ["q"], "add")], ["q"]),
              else_branch=_graph([], ["y"]))  # fmt: skip
    return _graph([N("Relu", ["x"], ["r"], "relu"), outer], ["o"], ("c", "x", "y", "z"))


def test_what_bodies_read_is_found_at_any_depth(nested):
    relu, outer = ir.serde.deserialize_graph(nested)
    assert list(bodies(relu)) == list(read_inside(relu)) == []
    assert len(list(bodies(outer))) == 2
    assert {value.name for value in read_inside(outer)} == {*"cpqxyzma"}


def test_protobufs_are_walked_alike(nested):
    relu, outer = nested.node
    assert [len(list(body_protos(node))) for node in (relu, outer)] == [0, 2]
    assert [node.name for node in node_protos(nested)][:2] == ["relu", "outer"]
    assert sorted(node.name for node in node_protos(nested)) == [
        "abs",
        "add",
        "inner",
        "neg",
        "outer",
        "relu",
    ]
    assert names_inside([relu]) == set()
    assert {*"cpqxzma", "add", "inner", "neg", "abs"} <= names_inside([outer])


def test_bodies_in_lists_count(nested):
    node = onnx.NodeProto(op_type="Switch", domain="custom")
    node.attribute.append(helper.make_attribute("cases", [nested, nested]))
    assert len(list(body_protos(node))) == 2
