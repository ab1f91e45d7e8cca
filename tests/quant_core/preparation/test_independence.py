"""The first axis counts samples where what a model gives for some does not depend on the others beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.errors import ModelError
from quant_core.preparation import prepare
from quant_core.spec import QuantizeSpec

N = helper.make_node
SPEC = QuantizeSpec.model_validate({"size": "1MB", "bits": [8], "rounding": "nearest", "device": "cpu"})
RANDOM = np.random.default_rng(0)


def _floats(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) / 2).astype(np.float32)


def _prepare(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    weights: dict[str, np.ndarray],
    samples: dict[str, np.ndarray],
) -> None:
    described = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
        for values in (inputs, outputs)
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", *described, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "s.npz", **samples)
    prepare(folder / "m.onnx", folder / "s.npz", SPEC)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("second", ["n", 1])
def test_steps_of_a_recurrent_network_are_no_samples(
    tmp_path: Path, direction: str, second: str | int
) -> None:
    nodes = [
        N("LSTM", ["x", "w", "r"], ["h"], "lstm", hidden_size=8, direction=direction),
        N("Squeeze", ["h", "one"], ["s"]),
        N("MatMul", ["s", "v"], ["y"], "head"),
    ]
    weights = {"w": _floats(1, 32, 6), "r": _floats(1, 32, 8), "one": np.array([1]), "v": _floats(8, 4)}
    shapes = {"x": ["steps", second, 6]}, {"y": ["steps", second, 4]}
    with pytest.raises(
        ModelError, match=r"'y' for one sample depends on the samples before and behind"
    ) as told:
        _prepare(tmp_path, nodes, *shapes, weights, {"x": _floats(12, 1, 6)})
    assert "batch as its first axis" in told.value.remedy
    assert told.value.where == str(tmp_path / "m.onnx")


def test_attention_along_the_first_axis_is_refused(tmp_path: Path) -> None:
    nodes = [
        N("MatMul", ["x", "w"], ["q"], "query"),
        N("Transpose", ["q"], ["t"], perm=[1, 0]),
        N("MatMul", ["q", "t"], ["s"]),
        N("Softmax", ["s"], ["p"]),
        N("MatMul", ["p", "x"], ["y"]),
    ]
    shapes = {"x": ["n", 16]}, {"y": ["n", 16]}
    with pytest.raises(ModelError, match="does not count samples"):
        _prepare(tmp_path, nodes, *shapes, {"w": _floats(16, 16) / 16}, {"x": _floats(12, 16)})


def test_one_output_that_is_independent_is_enough(tmp_path: Path) -> None:
    """Images and texts, each with a vector of its own, and all of them held against each other."""
    nodes = [
        N("MatMul", ["a", "w"], ["image"], "left"),
        N("MatMul", ["b", "v"], ["text"], "right"),
        N("Transpose", ["text"], ["t"], perm=[1, 0]),
        N("MatMul", ["image", "t"], ["scores"]),
        N("ReduceMean", ["scores", "last"], ["mean"], keepdims=0),
    ]
    inputs, weights = (
        {"a": ["n", 8], "b": ["n", 8]},
        {"w": _floats(8, 8), "v": _floats(8, 8), "last": np.array([1])},
    )
    outputs = {"mean": ["n"], "image": ["n", 8]}
    _prepare(tmp_path, nodes, inputs, outputs, weights, {"a": _floats(12, 8), "b": _floats(12, 8)})
    with pytest.raises(ModelError, match="'mean'"):
        _prepare(
            tmp_path,
            nodes,
            inputs,
            {"mean": ["n"]},
            weights,
            {"a": _floats(12, 8), "b": _floats(12, 8)},
        )


@pytest.mark.parametrize("in_turns", [False, True])
def test_several_rows_a_sample(tmp_path: Path, *, in_turns: bool) -> None:
    """Rows of one sample side by side, or step by step with the samples of each step side by side."""
    nodes = [
        N("MatMul", ["x", "w"], ["a"], "product"),
        N("Transpose", ["a"], ["t"], perm=[1, 0, 2] if in_turns else [0, 1, 2]),
        N("Reshape", ["t", "rows"], ["y"]),
    ]
    weights = {"w": _floats(8, 8), "rows": np.array([-1, 8])}
    _prepare(tmp_path, nodes, {"x": ["n", 5, 8]}, {"y": ["m", 8]}, weights, {"x": _floats(12, 5, 8)})
