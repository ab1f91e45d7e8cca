"""Constant scale and shift become part of the layer in front of them, where nothing else reads it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from quant_core.ingest import find_layers
from tests.quant_core.ingest.normalised import N, bn, check_same, norm, normal, ops


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_into_conv(bias, group, build, run, floats):
    feeds = {"x": floats(2, 4, 8, 8)}
    weights = norm(floats, 6) | {"w": floats(6, 4 // group, 3, 3)} | ({"c": floats(6)} if bias else {})
    conv = N("Conv", ["x", "w", "c"] if bias else ["x", "w"], ["h"], "conv", group=group)
    before = build([conv, bn()], feeds, weights)
    after = normal(before)
    assert ops(after) == ["Conv"]
    assert len(after.graph.initializers) == 2
    check_same(run, before, after, feeds)


@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_into_transposed_conv(group, build, run, floats):
    feeds = {"x": floats(2, 4, 5, 5)}
    weights = norm(floats, 6) | {"w": floats(4, 6 // group, 3, 3)}
    nodes = [N("ConvTranspose", ["x", "w"], ["h"], "deconv", group=group, strides=[2, 2]), bn()]
    before = build(nodes, feeds, weights)
    after = normal(before)
    assert ops(after) == ["ConvTranspose"]
    check_same(run, before, after, feeds)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["none", "vector", "scalar", "row"])
def test_batch_norm_into_gemm(transposed, bias, build, run, floats):
    feeds = {"x": floats(3, 5)}
    constants = {"vector": floats(6), "scalar": floats(1), "row": floats(1, 6)}
    weights = norm(floats, 6) | {"w": floats(6, 5) if transposed else floats(5, 6)}
    if bias != "none":
        weights["c"] = constants[bias]
    operands = ["x", "w"] if bias == "none" else ["x", "w", "c"]
    gemm = N("Gemm", operands, ["h"], "fc", transB=transposed, alpha=0.7, beta=1.3)
    before = build([gemm, bn()], feeds, weights)
    after = normal(before)
    assert ops(after) == ["Gemm"]
    check_same(run, before, after, feeds)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("layer", ["Conv", "ConvTranspose"])
def test_scale_and_shift_behind_conv(layer, group, build, run, floats):
    # What converters from other frameworks write for batch normalization.
    feeds = {"x": floats(2, 4, 7, 7)}
    shape = (6, 4 // group, 3, 3) if layer == "Conv" else (4, 6 // group, 3, 3)
    constants = {"w": floats(*shape), "m": floats(6, 1, 1), "a": floats(1, 6, 1, 1)}
    constants |= {"d": np.float32(1.7), "s": floats(1)}
    nodes = [
        N(layer, ["x", "w"], ["h1"], "conv", group=group),
        N("Mul", ["h1", "m"], ["h2"]),
        N("Add", ["a", "h2"], ["h3"]),
        N("Div", ["h3", "d"], ["h4"]),
        N("Sub", ["h4", "s"], ["y"]),
    ]
    before = build(nodes, feeds, constants)
    after = normal(before)
    assert ops(after) == [layer]
    check_same(run, before, after, feeds)


def test_scale_alone_brings_no_bias(build, run, floats):
    feeds = {"x": floats(2, 3, 7, 7)}
    nodes = [N("Conv", ["x", "w"], ["h"]), N("Mul", ["h", "two"], ["y"])]
    before = build(nodes, feeds, {"w": floats(4, 3, 3, 3), "two": np.float32(2)})
    after = normal(before)
    assert [len(node.inputs) for node in after.graph] == [2]
    check_same(run, before, after, feeds)


@pytest.mark.parametrize("shape", [(5,), (5, 5), (1, 1, 4, 5, 5), (2, 4, 1, 1), (4, 5, 5)])
def test_other_constants_behind_conv_stay(shape, build, run, floats):
    feeds = {"x": floats(2, 3, 7, 7)}
    nodes = [N("Conv", ["x", "w"], ["h"]), N("Mul", ["h", "c"], ["y"])]
    before = build(nodes, feeds, {"w": floats(4, 3, 3, 3), "c": floats(*shape)})
    after = normal(before)
    assert ops(after) == ["Conv", "Mul"]
    check_same(run, before, after, feeds)


def test_constant_minus_conv_stays(build, run, floats):
    feeds = {"x": floats(2, 3, 7, 7)}
    nodes = [N("Conv", ["x", "w"], ["h"]), N("Sub", ["c", "h"], ["y"])]
    before = build(nodes, feeds, {"w": floats(4, 3, 3, 3), "c": floats(4, 1, 1)})
    after = normal(before)
    assert ops(after) == ["Conv", "Sub"]
    check_same(run, before, after, feeds)


def test_batch_norm_behind_matmul_becomes_add(build, run, floats):
    feeds = {"x": floats(3, 5)}
    before = build([N("MatMul", ["x", "w"], ["h"]), bn()], feeds, norm(floats, 6) | {"w": floats(5, 6)})
    after = normal(before)
    assert ops(after) == ["MatMul", "Add"]
    check_same(run, before, after, feeds)


def test_batch_norm_behind_batched_matmul_stays(build, run, floats):
    # Channels of batch normalization are axis 1, outputs of this product are axis 2.
    feeds = {"x": floats(3, 6, 5)}
    before = build([N("MatMul", ["x", "w"], ["h"]), bn()], feeds, norm(floats, 6) | {"w": floats(5, 6)})
    after = normal(before)
    assert ops(after) == ["MatMul", "BatchNormalization"]
    check_same(run, before, after, feeds)


@pytest.mark.parametrize(
    ("others", "output"), [([N("Relu", ["h"], ["z"])], "z"), ([], "h")], ids=["read", "given out"]
)
def test_batch_norm_stays_where_something_else_takes_what_the_conv_gives(build, run, floats, others, output):
    feeds = {"x": floats(2, 3, 6, 6)}
    weights = norm(floats, 4) | {"w": floats(4, 3, 3, 3)}
    before = build([N("Conv", ["x", "w"], ["h"]), bn(), *others], feeds, weights, outputs=("y", output))
    after = normal(before)
    assert "BatchNormalization" in ops(after)
    check_same(run, before, after, feeds)


def test_shared_weight_stays_one_and_its_batch_norm_apart(build, run, floats):
    feeds = {"x": floats(2, 3, 6, 6)}
    weights = norm(floats, 3) | {"w": floats(3, 3, 1, 1)}
    nodes = [
        N("Identity", ["w"], ["copy"]),
        N("Conv", ["x", "w"], ["a"], "first"),
        N("Conv", ["a", "copy"], ["h"], "second"),
        bn(),
    ]
    before = build(nodes, feeds, weights)
    after = normal(before)
    assert ops(after) == ["Conv", "Conv", "BatchNormalization"]
    (layer,) = find_layers(after)
    assert [use.node for use in layer.uses] == ["first", "second"]
    check_same(run, before, after, feeds)


def test_float16_is_folded_in_float32(build, run, floats):
    feeds = {"x": floats(2, 3, 6, 6).astype(np.float16)}
    weights = norm(floats, 4) | {"w": floats(4, 3, 3, 3)}
    half = {name: value.astype(np.float16) for name, value in weights.items()}
    types = {"y": TensorProto.FLOAT16}
    before = build([N("Conv", ["x", "w"], ["h"]), bn()], feeds, half, output_types=types)
    after = normal(before)
    assert ops(after) == ["Cast", "Conv", "Cast"]
    assert after.graph.initializers["w"].dtype == ir.DataType.FLOAT
    check_same(run, before, after, feeds, rtol=1e-2)
