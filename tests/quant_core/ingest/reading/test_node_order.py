"""Nodes that a file holds in the wrong order."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from quant_core.errors import ModelError
from quant_core.ingest import normalise, read_model
from quant_core.ingest.reading.node_order import sort_nodes

N = helper.make_node


def test_sorted_nodes_stay_where_they_are(resnet20):
    graph = onnx.load(resnet20).graph
    before = [node.name for node in graph.node]
    assert not sort_nodes(graph)
    assert [node.name for node in graph.node] == before


def test_a_shuffled_file_is_read(resnet20, save, images, run):
    model = onnx.load(resnet20)
    shuffled = [model.graph.node[i] for i in np.random.default_rng(0).permutation(len(model.graph.node))]
    del model.graph.node[:]
    model.graph.node.extend(shuffled)
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(model)
    normal = normalise(read_model(save(model)).model)
    expected = run(resnet20, {"input": images[:2]})
    assert np.allclose(run(normal, {"input": images[:2]})[0], expected[0], rtol=1e-4, atol=1e-4)


def test_what_a_subgraph_reads_comes_before_it(build, floats):
    body = helper.make_graph([N("Tanh", ["m"], ["t"]), N("Relu", ["h"], ["m"])], "b", [], [
        helper.make_tensor_value_info("t", 1, None)
    ])  # fmt: skip
    nodes = [N("If", ["c"], ["y"], then_branch=body, else_branch=body), N("Neg", ["x"], ["h"])]
    graph = helper.make_graph(nodes, "g", [], [])
    assert sort_nodes(graph)
    assert [node.op_type for node in graph.node] == ["Neg", "If"]
    inner = graph.node[1].attribute[0].g
    assert [node.op_type for node in inner.node] == ["Relu", "Tanh"]


def test_a_circle_is_left_to_the_checker(build, floats, save):
    model = build([N("Relu", ["x"], ["y"])], {"x": floats(2, 3)})
    del model.graph.node[:]
    model.graph.node.extend([N("Add", ["x", "b"], ["y"]), N("Relu", ["y"], ["b"])])
    assert not sort_nodes(model.graph)
    with pytest.raises(ModelError, match=r"a node without a name \(Add\) reads 'b'"):
        read_model(save(model))


def test_float16_files_of_onnxruntimes_converter_are_read(resnet20, save):
    """It appends a Cast after the nodes that read it."""
    half = convert_float_to_float16(onnx.load(resnet20), keep_io_types=True)
    assert read_model(save(half)).file_bytes > 0
