"""Fused operators that hold weights are taken apart; what onnxruntime computes stays the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from quant_core.ingest import find_layers, normalise

MS = "com.microsoft"


def fused(op, inputs, outputs, name=None, **attributes):
    return helper.make_node(op, inputs, outputs, name, domain=MS, **attributes)


def taken_apart(build, run, nodes, feeds, weights, outputs=("y",), **options):
    before = build(nodes, feeds, weights, outputs, opset=18, **options)
    after = normalise(ir.from_proto(before))
    for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    return [layer.op for layer in find_layers(after)], {node.op_type for node in after.graph}


ACTIVATIONS = [
    ({}, set()),
    ({"activation": "Relu"}, {"Relu"}),
    ({"activation": "LeakyRelu", "activation_params": [0.2]}, {"LeakyRelu"}),
    ({"activation": "Clip", "activation_params": [-0.5, 0.5]}, {"Clip"}),
    ({"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}, {"HardSigmoid"}),
]


@pytest.mark.parametrize(("attributes", "written"), ACTIVATIONS)
@pytest.mark.parametrize("added", [False, True])
def test_convolutions(attributes, written, added, build, run, floats):
    names = ["x", "w", "b", "x"] if added else ["x", "w", "b"]
    node = fused("FusedConv", names, ["y"], pads=[1, 1, 1, 1], **attributes)
    weights = {"w": floats(4, 4, 3, 3), "b": floats(4)}
    layers, ops = taken_apart(build, run, [node], {"x": floats(2, 4, 6, 6)}, weights)
    assert layers == ["Conv"]
    assert ops == {"Conv"} | written | ({"Add"} if added else set())


def test_matrices(build, run, floats):
    nodes = [
        fused("FusedGemm", ["x", "w", "b"], ["h"], transB=1, activation="Elu", activation_alpha=0.5),
        fused("FusedMatMul", ["h", "v"], ["y"], transB=1, alpha=0.25),
    ]
    weights = {"w": floats(32, 48), "b": floats(32), "v": floats(40, 32)}
    layers, ops = taken_apart(build, run, nodes, {"x": floats(2, 48)}, weights)
    assert layers == ["Gemm", "MatMul"]
    assert ops == {"Gemm", "Elu", "MatMul", "Mul"}


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_weights_of_other_precision_are_layers(kind, build, run, floats):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    node = fused("FusedMatMul", ["x", "w"], ["y"], alpha=0.5)
    before = build(
        [node],
        {"x": floats(2, 32).astype(dtype)},
        {"w": floats(32, 32).astype(dtype)},
        opset=18,
        output_types={"y": kind},
    )
    after = normalise(ir.from_proto(before))
    assert [layer.op for layer in find_layers(after)] == ["MatMul"]
    feeds = {"x": floats(2, 32).astype(dtype)}
    np.testing.assert_allclose(run(after, feeds)[0], run(before, feeds)[0], rtol=1e-3, atol=1e-5)


ATTENTION = {"w": (16, 48), "b": (48,)}


@pytest.mark.parametrize(
    ("inputs", "attributes"),
    [
        ([], {}),
        (["mask"], {}),
        (["", "", "bias"], {"scale": 0.3}),
        ([], {"unidirectional": 1}),
        ([], {"qkv_hidden_sizes": [8, 8, 32]}),
    ],
)
def test_attention(inputs, attributes, build, run, floats):
    node = fused("Attention", ["x", "w", "b", *inputs], ["y"], num_heads=4, **attributes)
    feeds = {"x": floats(2, 5, 16)}
    if "mask" in inputs:
        feeds["mask"] = (np.arange(5) < np.array([[3], [5]])).astype(np.int32)
    if "bias" in inputs:
        feeds["bias"] = floats(2, 4, 5, 5)
    weights = {name: floats(*shape) for name, shape in ATTENTION.items()}
    layers, ops = taken_apart(build, run, [node], feeds, weights)
    assert layers == ["MatMul"]
    assert ops == {"MatMul", "Add", "Split", "MultiHeadAttention"}


def test_attention_with_a_past_stays(build, run, floats):
    node = fused("Attention", ["x", "w", "b", "", "past"], ["y", "present"], num_heads=4, unidirectional=1)
    feeds = {"x": floats(2, 5, 16), "past": floats(2, 2, 4, 3, 4)}
    weights = {name: floats(*shape) for name, shape in ATTENTION.items()}
    assert taken_apart(build, run, [node], feeds, weights, ("y", "present")) == ([], {"Attention"})


@pytest.mark.parametrize("placed", [False, True])
def test_embeddings_whose_counts_of_keys_an_attention_reads(placed, build, run, floats):
    names = ["ids", "segments", "words", "positions", "kinds", "gamma", "beta", "mask"]
    nodes = [
        fused(
            "EmbedLayerNormalization", [*names, *(["places"] if placed else [])], ["h", "count"], epsilon=1e-6
        ),
        fused("Attention", ["h", "w", "b", "count"], ["y"], num_heads=4),
    ]
    ids = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], np.int32)
    feeds = {"ids": ids, "segments": ids % 2, "mask": (np.arange(5) < np.array([[3], [5]])).astype(np.int32)}
    if placed:
        feeds["places"] = np.arange(5, dtype=np.int32)[None] + np.array([[0], [2]], np.int32)
    weights = {"words": floats(80, 16), "positions": floats(70, 16), "kinds": floats(2, 16)}
    weights |= {"gamma": floats(16), "beta": floats(16)}
    weights |= {name: floats(*shape) for name, shape in ATTENTION.items()}
    layers, ops = taken_apart(
        build, run, nodes, feeds, weights, ("y", "count"), output_types={"count": TensorProto.INT32}
    )
    # The rows of places that are known beforehand are a constant.
    assert layers == ["Gather"] * (2 + placed) + ["MatMul"]
    assert not {"Attention", "EmbedLayerNormalization"} & ops
