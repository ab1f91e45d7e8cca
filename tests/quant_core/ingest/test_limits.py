"""Limits below those of the engine, for whoever runs a service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_core.errors import ModelError
from quant_core.ingest import read_model
from quant_core.spec.limits import MAX_DEPTH, MAX_NODES, Limits, limited_to, limits


def _write(path: Path, *, external: bool = False) -> Path:
    """Three nodes, one of them an If with branches, and a weight of 256 bytes."""
    weight = numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    branch = helper.make_graph(
        [helper.make_node("Relu", ["z"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [weight]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, path, save_as_external_data=external, location="w.bin", size_threshold=0)
    return path


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (Limits(nodes=3), "3 are allowed"),
        (Limits(nesting=1), "nested 1 deep"),
        (Limits(tensor_bytes=255), "'w' has 256 bytes; 255 are allowed"),
    ],
)
@pytest.mark.parametrize("external", [False, True])
def test_what_is_larger_is_refused(tmp_path: Path, chosen: Limits, words: str, *, external: bool) -> None:
    path = _write(tmp_path / "m.onnx", external=external)
    with limited_to(chosen), pytest.raises(ModelError, match=words) as told:
        read_model(path)
    assert told.value.remedy
    assert limits() == Limits(MAX_NODES, MAX_DEPTH, None)
    with limited_to(Limits(nodes=20, nesting=2, tensor_bytes=256)):
        read_model(path)
    read_model(path)
