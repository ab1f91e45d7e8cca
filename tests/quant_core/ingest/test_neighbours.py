"""First and last layers, layers that share an input, and those behind convolutions."""

import numpy as np
import onnx_ir as ir
from onnx import helper

from quant_core.ingest import find_layers, normalise, read_model, with_shapes

N = helper.make_node


def _layers(model):
    return {layer.weight: layer for layer in find_layers(normalise(ir.serde.deserialize_model(model)))}


def test_attention_block(build, floats):
    """x @ e feeds q, k and v; o follows. Only e is first, only o is last; q, k and v are siblings."""
    nodes = [N("MatMul", ["x", "e"], ["h"])]
    nodes += [N("MatMul", ["h", f"w{name}"], [name]) for name in "qkv"]
    nodes += [N("Mul", ["q", "k"], ["s"]), N("Add", ["s", "v"], ["a"]), N("MatMul", ["a", "o"], ["y"])]
    weights = {name: floats(4, 4) for name in ("e", "wq", "wk", "wv", "o")}
    layers = _layers(build(nodes, {"x": floats(2, 4)}, weights))
    assert {name for name, layer in layers.items() if layer.first} == {"e"}
    assert {name for name, layer in layers.items() if layer.last} == {"o"}
    names = {weight: layer.name for weight, layer in layers.items()}
    assert layers["wk"].siblings == (names["wq"], names["wv"])
    assert layers["e"].siblings == layers["o"].siblings == ()


def test_two_branches_have_two_first_and_two_last_layers(build, floats):
    nodes = [N("MatMul", ["x", "a"], ["y"]), N("MatMul", ["x", "b"], ["z"])]
    layers = _layers(build(nodes, {"x": floats(2, 4)}, {"a": floats(4, 4), "b": floats(4, 4)}, ("y", "z")))
    assert all(layer.first and layer.last and layer.siblings for layer in layers.values())


def test_tied_weight_is_first_and_last(build, floats):
    nodes = [N("MatMul", ["x", "t"], ["h"]), N("MatMul", ["h", "m"], ["g"]), N("MatMul", ["g", "t"], ["y"])]
    layers = _layers(build(nodes, {"x": floats(2, 4)}, {"t": floats(4, 4), "m": floats(4, 4)}))
    assert (layers["t"].first, layers["t"].last) == (True, True)
    assert (layers["m"].first, layers["m"].last) == (False, False)


def test_a_subgraph_carries_what_it_reads(build, floats):
    """The first layer is read inside of If only, and the second reads what If gives."""
    relu = helper.make_graph(
        [N("Relu", ["h"], ["r"])], "a", [], [helper.make_tensor_value_info("r", 1, None)]
    )
    tanh = helper.make_graph(
        [N("Tanh", ["h"], ["t"])], "b", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    nodes = [
        N("MatMul", ["x", "a"], ["h"]),
        N("If", ["c"], ["g"], then_branch=relu, else_branch=tanh),
        N("MatMul", ["g", "b"], ["y"]),
    ]
    inputs = {"x": floats(2, 4), "c": np.array([True])}
    layers = _layers(build(nodes, inputs, {"a": floats(4, 4), "b": floats(4, 4)}))
    assert (layers["a"].first, layers["a"].last) == (True, False)
    assert (layers["b"].first, layers["b"].last) == (False, True)


def test_elements_per_sample(build, floats):
    """Strided convolution, batch 2: 3x8x8 values go in and 4x4x4 come out."""
    node = N("Conv", ["x", "w"], ["y"], "conv", strides=[2, 2], pads=[1, 1, 0, 0])
    model = ir.serde.deserialize_model(build([node], {"x": floats(2, 3, 8, 8)}, {"w": floats(4, 3, 3, 3)}))
    (layer,) = with_shapes(find_layers(model), model, {"x": (2, 3, 8, 8), "y": (2, 4, 4, 4)}, 2)
    assert (layer.input_elements, layer.output_elements) == (192, 64)
    assert layer.macs == 64 * 27


def test_resnet20_begins_with_a_convolution_and_ends_with_the_head(resnet20):
    layers = find_layers(normalise(read_model(resnet20).model))
    assert [layer.name for layer in layers if layer.first] == ["/conv1/Conv"]
    assert [layer.name for layer in layers if layer.last] == ["/fc/Gemm"]
    # A projection reads what the first convolution of its block reads.
    assert sorted(len(layer.siblings) for layer in layers)[-4:] == [1, 1, 1, 1]


def test_products_behind_convolutions_with_no_matmul_as_near(build, floats):
    """A Gemm is passed by; where a MatMul is added to what a convolution gives, or lies between, nothing is noted."""
    nodes = [
        N("Conv", ["x", "k"], ["c"]),
        N("Flatten", ["c"], ["f"]),
        N("Gemm", ["f", "one"], ["g"]),
        N("Relu", ["g"], ["r"]),
        N("Gemm", ["r", "two"], ["y"]),
        N("MatMul", ["f", "m"], ["p"]),
        N("Add", ["p", "f"], ["s"]),
        N("Gemm", ["s", "three"], ["z"]),
        N("Gemm", ["p", "four"], ["v"]),
    ]
    weights = {name: floats(8, 8) for name in ("one", "two", "three", "four", "m")} | {
        "k": floats(2, 3, 1, 1)
    }
    layers = _layers(build(nodes, {"x": floats(2, 3, 2, 2)}, weights, ("y", "z", "v")))
    assert {name for name, layer in layers.items() if layer.behind_convolution} == {"one", "two", "m"}
