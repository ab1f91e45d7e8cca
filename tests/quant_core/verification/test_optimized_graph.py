from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from quant_core.ingest.layer import Layer, Use
from quant_core.verification import FLOAT_OPERATORS, INT8_OPERATORS, NOT_FOUND, kernels, optimized_graph

WIDTH = 32
IMAGE: list[int | str] = [1, WIDTH, 6, 6]
ROWS: list[int | str] = [2, 4, WIDTH]


def layer(node: str, op: str, output: str, *, operand: int = 1, name: str | None = None) -> Layer:
    return Layer(name or node, op, "w", (WIDTH, WIDTH), 0, (Use(node, op, "x", output, operand),))


def conv(
    new_graph,
    path: Path,
    *,
    zero_point: int = 0,
    relu: bool = True,
    output_grid: bool = True,
    name: str = "stem/conv",
) -> Path:
    graph = new_graph()
    inputs = [graph.quantized("x", 0.04, 128), graph.weight("w", (WIDTH, WIDTH, 3, 3), 0)]
    inputs.append(graph.constant("b", graph.random.standard_normal(WIDTH)))
    tensor = graph.node("Conv", inputs, "c", name=name, pads=[1, 1, 1, 1])
    if relu:
        tensor = graph.node("Relu", [tensor], "r", name="stem/relu")
    if output_grid:
        tensor = graph.quantized(tensor, 0.06, zero_point)
    graph.node("Identity", [tensor], "y")
    return graph.save(path, {"x": IMAGE}, {"y": IMAGE})


def test_a_quantized_convolution_is_on_the_int8_kernel(tmp_path, new_graph):
    path = conv(new_graph, tmp_path / "m.onnx")
    assert kernels(path, [layer("stem/conv", "Conv", "c")]) == {"stem/conv": "QLinearConv"}


def test_names_may_begin_as_those_of_fused_nodes(tmp_path, new_graph):
    # So they do where onnxruntime itself wrote the model. Moved to channels-last, the node gets another name.
    path = conv(new_graph, tmp_path / "m.onnx", name="fused 7/conv")
    assert kernels(path, [layer("fused 7/conv", "Conv", "c")]) == {"fused 7/conv": "QLinearConv"}


def test_a_fusion_that_failed_is_told_from_a_float_layer(tmp_path, new_graph):
    # A Relu before a grid whose zero is not at the bottom keeps onnxruntime from fusing.
    path = conv(new_graph, tmp_path / "m.onnx", zero_point=7)
    found = kernels(path, [layer("stem/conv", "Conv", "c")])["stem/conv"]
    assert found == "DequantizeLinear+FusedConv"
    assert found not in INT8_OPERATORS | FLOAT_OPERATORS


@pytest.mark.parametrize("explicit", [True, False])
def test_gemm_needs_an_explicit_weight_zero_point(tmp_path, new_graph, explicit):
    graph = new_graph()
    inputs = [graph.quantized("x", 0.04, 128), graph.weight("w", (WIDTH, WIDTH), 0, zero_point=explicit)]
    graph.node("Gemm", inputs, "g", name="head", transB=1)
    graph.node("Identity", [graph.quantized("g", 0.06, 128)], "y")
    path = graph.save(tmp_path / "m.onnx", {"x": [4, WIDTH]}, {"y": [4, WIDTH]})
    expected = "QGemm" if explicit else "DequantizeLinear+Gemm"
    assert kernels(path, [layer("head", "Gemm", "g")]) == {"head": expected}


def test_a_matmul_with_static_grids_is_on_the_int8_kernel(tmp_path, new_graph):
    graph = new_graph()
    inputs = [graph.quantized("x", 0.04, 128), graph.weight("w", (WIDTH, WIDTH), 1)]
    graph.node("MatMul", inputs, "m", name="proj")
    graph.node("Identity", [graph.quantized("m", 0.06, 128)], "y")
    path = graph.save(tmp_path / "m.onnx", {"x": ROWS}, {"y": ROWS})
    assert kernels(path, [layer("proj", "MatMul", "m")]) == {"proj": "QLinearMatMul"}


@pytest.mark.parametrize(("count", "kernel"), [(1, "DynamicQuantizeMatMul"), (3, "MatMulIntegerToFloat")])
def test_dynamic_matmuls_are_on_the_int8_kernel(tmp_path, new_graph, count, kernel):
    graph = new_graph()
    graph.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
    for k in range(count):
        graph.weight(f"w{k}", (WIDTH, WIDTH), 1)
        graph.nodes.pop()  # the codes are multiplied as they are
        graph.node("MatMulInteger", ["q", f"w{k}_int8", "z"], f"i{k}", name=f"proj{k}")
        graph.node("Cast", [f"i{k}"], f"f{k}", to=onnx.TensorProto.FLOAT)
        graph.node("Mul", ["s", f"w{k}_scale"], f"s{k}")
        graph.node("Mul", [f"f{k}", f"s{k}"], f"m{k}")
        graph.node("Add", [f"m{k}", graph.constant(f"b{k}", np.ones(WIDTH))], f"y{k}")
    path = graph.save(tmp_path / "m.onnx", {"x": ROWS}, {f"y{k}": ROWS for k in range(count)})
    layers = [layer(f"proj{k}", "MatMul", f"y{k}") for k in range(count)]
    assert kernels(path, layers) == {f"proj{k}": kernel for k in range(count)}


def test_float_layers_are_found_under_the_names_onnxruntime_gives_them(tmp_path, new_graph):
    graph = new_graph()
    graph.constant("w", graph.random.standard_normal((WIDTH, WIDTH, 3, 3)))
    graph.node("Conv", ["x", "w"], "c", name="first", pads=[1, 1, 1, 1])
    graph.node("Relu", ["c"], "r", name="relu")
    graph.node("Conv", ["r", "w"], "d", name="second", pads=[1, 1, 1, 1])
    graph.node("Add", ["d", "r"], "a", name="add")
    graph.node("Relu", ["a"], "e", name="relu2")
    graph.node("GlobalAveragePool", ["e"], "p", name="pool")
    graph.node("Flatten", ["p"], "f", name="flatten")
    graph.constant("v", graph.random.standard_normal((WIDTH, WIDTH)))
    graph.node("Gemm", ["f", "v"], "g", name="head")
    graph.node("LeakyRelu", ["g"], "l", name="leaky", alpha=1.0)
    graph.node("MatMul", ["l", "v"], "m", name="proj")
    graph.node("Add", ["m", graph.constant("b", np.ones(WIDTH))], "y", name="bias")
    path = graph.save(tmp_path / "m.onnx", {"x": IMAGE}, {"y": [1, WIDTH]})
    layers = [
        Layer(
            "shared",
            "Conv",
            "w",
            (),
            0,
            (Use("first", "Conv", "x", "c", 1), Use("second", "Conv", "r", "d", 1)),
        ),
        layer("head", "Gemm", "g"),
        layer("proj", "MatMul", "m"),
        layer("absent", "Conv", "nowhere"),
    ]
    found = kernels(path, layers)
    assert found == {"shared": "Conv", "head": "FusedGemm", "proj": "Gemm", "absent": NOT_FOUND}
    assert {found[name] for name in ("shared", "head", "proj")} <= FLOAT_OPERATORS


@pytest.mark.parametrize(
    ("op", "around", "kernel"),
    [
        ("MatMul", ("", "Mul"), "FusedMatMul"),
        ("MatMul", ("Transpose", ""), "FusedMatMul"),
        ("Gemm", ("Transpose", "Relu"), "FusedGemm"),
        ("Gemm", ("", "Transpose"), "Gemm"),
    ],
)
def test_products_that_take_in_their_neighbours_are_found(op, around, kernel, tmp_path, new_graph):
    graph = new_graph()
    weight = graph.constant("w", graph.random.standard_normal((WIDTH, WIDTH)))
    before, after = around
    tensor = graph.node(before, ["x"], "t", perm=[1, 0]) if before else "x"
    tensor = graph.node(op, [tensor, weight], "m", name="encoder/product")
    factor = [graph.constant("s", np.float32(0.3))] if after == "Mul" else []
    graph.node(after or "Softmax", [tensor, *factor], "y")
    path = graph.save(tmp_path / "m.onnx", {"x": [WIDTH, WIDTH]}, {"y": [WIDTH, WIDTH]})
    assert kernels(path, [layer("encoder/product", op, "m")]) == {"encoder/product": kernel}
    assert all(node.name != "encoder/product" for node in optimized_graph(path).graph.node)


def test_a_float_convolution_between_grids_is_caught_when_onnxruntime_quantizes_it(tmp_path, new_graph):
    for name, kept_float in (("trap.onnx", False), ("kept.onnx", True)):
        graph = new_graph()
        weight = graph.constant("w", graph.random.standard_normal((WIDTH, WIDTH, 3, 3)))
        tensor = graph.node(
            "Conv", [graph.quantized("x", 0.04, 128), weight], "c", name="conv", pads=[1, 1, 1, 1]
        )
        if kept_float:
            tensor = graph.node("LeakyRelu", [tensor], "k", alpha=1.0)
        graph.node("Identity", [graph.quantized(tensor, 0.06, 128)], "y")
        path = graph.save(tmp_path / name, {"x": IMAGE}, {"y": IMAGE})
        assert kernels(path, [layer("conv", "Conv", "c")])["conv"] == (
            "Conv" if kept_float else "QLinearConv"
        )


def test_a_node_without_a_name_is_found_by_what_it_writes(tmp_path, new_graph):
    graph = new_graph()
    graph.constant("w", graph.random.standard_normal((WIDTH, WIDTH, 3, 3)))
    graph.node("Conv", ["x", "w"], "c", pads=[1, 1, 1, 1])
    graph.node("Relu", ["c"], "y")
    path = graph.save(tmp_path / "m.onnx", {"x": IMAGE}, {"y": IMAGE})
    assert kernels(path, [layer("", "Conv", "c", name="c")]) == {"c": "Conv"}


def test_the_data_of_large_weights_is_not_read(tmp_path, new_graph):
    graph = optimized_graph(conv(new_graph, tmp_path / "m.onnx")).graph
    assert max(len(tensor.raw_data) for tensor in graph.initializer) < 1024
