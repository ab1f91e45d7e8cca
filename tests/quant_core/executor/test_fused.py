"""The fused operators, against onnxruntime's own kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from quant_core.executor import run

RNG = np.random.default_rng(0)
KINDS = {"float32": 1, "int32": 6, "int64": 7, "uint8": 2, "int8": 3}


def real(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def one_node(
    op: str, inputs: Mapping[str, np.ndarray | None], outputs: int, attributes: Mapping[str, Any]
) -> Any:
    given = {name: value for name, value in inputs.items() if value is not None}
    node = helper.make_node(
        op,
        [name if name in given else "" for name in inputs],
        [f"y{index}" for index in range(outputs)],
        domain="com.microsoft",
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(name, KINDS[v.dtype.name], list(v.shape))
            for name, v in given.items()
        ],
        [onnx.ValueInfoProto(name=f"y{index}") for index in range(outputs)],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    return model, given


def cache(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    angle = np.outer(np.arange(length), 1.0 / 100 ** (np.arange(size) / size)).astype(np.float32)
    return np.cos(angle), np.sin(angle)


COS, SIN = cache(32, 4)
WIDE = cache(32, 8)
LENGTHS = np.array([3, 5], np.int32)
CASES: list[tuple[str, dict[str, Any], int, dict[str, Any]]] = [
    ("Gelu", {"x": real(2, 5)}, 1, {}),
    ("BiasGelu", {"x": real(2, 5), "b": real(5)}, 1, {}),
    ("FastGelu", {"x": real(2, 5), "b": real(5)}, 1, {}),
    ("FastGelu", {"x": real(2, 5)}, 1, {}),
    ("QuickGelu", {"x": real(2, 5)}, 1, {"alpha": 1.5}),
    ("Inverse", {"x": real(3, 4, 4)}, 1, {}),
    ("FusedConv", {"x": real(1, 3, 6, 6), "w": real(4, 3, 3, 3), "b": real(4)}, 1, {"activation": "Relu"}),
    (
        "FusedConv",
        {"x": real(1, 3, 6, 6), "w": real(4, 3, 3, 3), "b": real(4), "z": real(1, 4, 4, 4)},
        1,
        {"activation": "LeakyRelu", "activation_params": [0.2]},
    ),
    (
        "FusedConv",
        {"x": real(1, 3, 6, 6), "w": real(4, 3, 3, 3)},
        1,
        {"activation": "Clip", "activation_params": [0.0, 1.0]},
    ),
    (
        "FusedGemm",
        {"a": real(3, 4), "b": real(5, 4), "c": real(5)},
        1,
        {"transB": 1, "activation": "LeakyRelu", "activation_alpha": 0.3},
    ),
    ("FusedMatMul", {"a": real(2, 4, 3), "b": real(2, 4, 5)}, 1, {"transA": 1, "alpha": 0.5}),
    ("FusedMatMul", {"a": real(4, 2, 3), "b": real(2, 3, 5)}, 1, {"transBatchA": 1}),
    (
        "SkipLayerNormalization",
        {"x": real(2, 3, 8), "s": real(2, 3, 8), "g": real(8), "b": real(8), "c": real(8)},
        1,
        {"epsilon": 1e-5},
    ),
    ("SkipSimplifiedLayerNormalization", {"x": real(2, 3, 8), "s": real(2, 3, 8), "g": real(8)}, 1, {}),
    (
        "EmbedLayerNormalization",
        {
            "ids": np.array([[1, 2, 3], [4, 5, 0]], np.int32),
            "segments": np.array([[0, 0, 1], [0, 1, 1]], np.int32),
            "words": real(6, 8),
            "positions": real(4, 8),
            "types": real(2, 8),
            "gamma": real(8),
            "beta": real(8),
            "mask": np.array([[1, 1, 1], [1, 1, 0]], np.int32),
        },
        2,
        {"epsilon": 1e-5},
    ),
    (
        "Attention",
        {
            "x": real(2, 5, 8),
            "w": real(8, 24),
            "b": real(24),
            "m": np.array([[1] * 5, [1, 1, 1, 0, 0]], np.int32),
        },
        1,
        {"num_heads": 2},
    ),
    ("Attention", {"x": real(2, 5, 8), "w": real(8, 24), "b": real(24), "m": LENGTHS}, 1, {"num_heads": 2}),
    (
        "Attention",
        {"x": real(2, 5, 8), "w": real(8, 24), "b": real(24), "m": None, "p": real(2, 2, 2, 3, 4)},
        2,
        {"num_heads": 2, "unidirectional": 1},
    ),
    (
        "MultiHeadAttention",
        {"q": real(2, 5, 8), "k": real(2, 6, 8), "v": real(2, 6, 8), "b": real(24)},
        1,
        {"num_heads": 2},
    ),
    (
        "MultiHeadAttention",
        {
            "q": real(2, 5, 8),
            "k": real(2, 5, 8),
            "v": real(2, 5, 8),
            "b": None,
            "m": np.array([[1] * 5, [1, 1, 1, 0, 0]], np.int32),
            "a": real(2, 2, 5, 5),
        },
        1,
        {"num_heads": 2, "scale": 0.3},
    ),
    (
        "MultiHeadAttention",
        {
            "q": real(2, 1, 8),
            "k": real(2, 1, 8),
            "v": real(2, 1, 8),
            "b": None,
            "m": None,
            "a": None,
            "pk": real(2, 2, 3, 4),
            "pv": real(2, 2, 3, 4),
        },
        3,
        {"num_heads": 2},
    ),
    (
        "RotaryEmbedding",
        {"x": real(2, 3, 16), "p": np.array([[0, 1, 2], [4, 5, 6]], np.int64), "c": COS, "s": SIN},
        1,
        {},
    ),
    (
        "RotaryEmbedding",
        {"x": real(2, 2, 3, 8), "p": np.array([2], np.int64), "c": COS, "s": SIN},
        1,
        {"interleaved": 1},
    ),
    (
        "GroupQueryAttention",
        {
            "q": real(2, 4, 64),
            "k": real(2, 4, 32),
            "v": real(2, 4, 32),
            "pk": None,
            "pv": None,
            "n": np.array([3, 3], np.int32),
            "t": np.array(4, np.int32),
            "c": WIDE[0],
            "s": WIDE[1],
        },
        3,
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1},
    ),
    (
        "GroupQueryAttention",
        {
            "q": real(2, 1, 32),
            "k": real(2, 1, 16),
            "v": real(2, 1, 16),
            "pk": real(2, 2, 6, 8),
            "pv": real(2, 2, 6, 8),
            "n": np.array([6, 6], np.int32),
            "t": np.array(7, np.int32),
        },
        3,
        {"num_heads": 4, "kv_num_heads": 2, "local_window_size": 4},
    ),
    (
        "MatMulNBits",
        {
            "a": real(3, 32),
            "b": RNG.integers(0, 256, (5, 2, 8), dtype=np.uint8),
            "s": real(10),
            "z": RNG.integers(0, 256, (5,), dtype=np.uint8),
        },
        1,
        {"K": 32, "N": 5, "bits": 4, "block_size": 16},
    ),
    (
        "MatMulNBits",
        {"a": real(3, 48), "b": RNG.integers(0, 256, (5, 2, 16), dtype=np.uint8), "s": real(10)},
        1,
        {"K": 48, "N": 5, "bits": 4, "block_size": 32},
    ),
    (
        "QLinearAdd",
        {
            "a": RNG.integers(0, 256, (3, 4), dtype=np.uint8),
            "as": np.float32(0.1),
            "az": np.uint8(7),
            "b": RNG.integers(0, 256, (3, 4), dtype=np.uint8),
            "bs": np.float32(0.2),
            "bz": np.uint8(9),
            "ys": np.float32(0.3),
            "yz": np.uint8(5),
        },
        1,
        {},
    ),
    (
        "MatMulIntegerToFloat",
        {
            "a": RNG.integers(0, 256, (3, 4), dtype=np.uint8),
            "b": RNG.integers(-128, 128, (4, 5), dtype=np.int8),
            "as": np.array([0.1], np.float32),
            "bs": RNG.uniform(0.1, 1, 5).astype(np.float32),
            "az": np.array([7], np.uint8),
        },
        1,
        {},
    ),
    (
        "DynamicQuantizeMatMul",
        {
            "a": real(3, 4),
            "b": RNG.integers(-128, 128, (4, 5), dtype=np.int8),
            "bs": RNG.uniform(0.1, 1, 5).astype(np.float32),
        },
        1,
        {},
    ),
]


NAMES = [f"{index}-{case[0]}" for index, case in enumerate(CASES)]
ROUNDED = {"QLinearAdd", "DynamicQuantizeMatMul"}


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_fused_operators_agree_with_onnxruntime(
    case: tuple[str, dict[str, Any], int, dict[str, Any]],
) -> None:
    op, inputs, outputs, attributes = case
    arrays = {name: None if value is None else np.asarray(value) for name, value in inputs.items()}
    model, given = one_node(op, arrays, outputs, attributes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, given)
    found = run(model, given)
    for index, reference in enumerate(expected):
        np.testing.assert_allclose(found[f"y{index}"], reference, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case[0] not in ROUNDED],
    ids=[name for name, case in zip(NAMES, CASES, strict=True) if case[0] not in ROUNDED],
)
def test_fused_operators_have_two_derivatives(
    case: tuple[str, dict[str, Any], int, dict[str, Any]], check
) -> None:
    op, inputs, outputs, attributes = case
    arrays = {name: None if value is None else np.asarray(value) for name, value in inputs.items()}
    model, given = one_node(op, arrays, outputs, attributes)
    assert check(model, given)
