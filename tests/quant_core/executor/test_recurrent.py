"""Recurrent operators against onnxruntime: by torch's kernels and step by step, with equal derivatives."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import helper
from torch.autograd import forward_ad

from quant_core.executor import compile_model

STEPS, BATCH, FEATURES, HIDDEN = 4, 3, 2, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": True},
    "clip": {"attributes": {"clip": 0.3}},
    "peephole": {"peephole": True},
    "coupled": {"attributes": {"input_forget": 1}},
    "activations": {"activations": ("HardSigmoid", "Relu", "Tanh")},
    "linear": {"attributes": {"linear_before_reset": 1}},
}
ONLY = {"peephole": "LSTM", "coupled": "LSTM", "linear": "GRU"}
CASES = [
    (op, direction, option)
    for op, direction, option in itertools.product(GATES, ("forward", "reverse", "bidirectional"), OPTIONS)
    if ONLY.get(option, op) == op
]


@pytest.mark.parametrize(("op", "direction", "option"), CASES)
def test_recurrent(op: str, direction: str, option: str) -> None:
    rng = np.random.default_rng(0)
    count, wanted = (2 if direction == "bidirectional" else 1), OPTIONS[option]

    def real(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    feeds = {
        "x": real(STEPS, BATCH, FEATURES),
        "w": real(count, GATES[op] * HIDDEN, FEATURES),
        "r": real(count, GATES[op] * HIDDEN, HIDDEN),
        "b": real(count, 2 * GATES[op] * HIDDEN),
    }
    names = [*feeds, "lengths" if wanted.get("lengths") else "", "h"]
    if wanted.get("lengths"):
        feeds["lengths"] = np.array([4, 2, 3], np.int32)
    feeds["h"] = real(count, BATCH, HIDDEN)
    outputs = ["y", "yh"]
    if op == "LSTM":
        feeds["c"], outputs, names = real(count, BATCH, HIDDEN), ["y", "yh", "yc"], [*names, "c"]
    if wanted.get("peephole"):
        feeds["p"], names = real(count, 3 * HIDDEN), [*names, "p"]
    attributes = dict(wanted.get("attributes", {}))
    if "activations" in wanted:
        per = {"RNN": 1, "GRU": 2, "LSTM": 3}[op]
        attributes["activations"] = list(wanted["activations"][:per]) * count
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, direction=direction, **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))
        for name, value in feeds.items()
    ]
    graph = helper.make_graph([node], "g", values, [onnx.ValueInfoProto(name=name) for name in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    program = compile_model(ir.serde.deserialize_model(model))
    tensors = [torch.from_numpy(feeds[name]) for name in program.inputs]
    fused = program(*tensors)
    # Forward differentiation is open, so that the cell is stepped.
    with forward_ad.dual_level():
        stepped = program(*tensors)
    for reference, fast, slow in zip(expected, fused, stepped, strict=True):
        np.testing.assert_allclose(fast.numpy(), reference, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(slow.numpy(), reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_torch_kernels_have_the_derivatives_of_the_steps(op: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (STEPS, BATCH, FEATURES),
        "w": (2, GATES[op] * HIDDEN, FEATURES),
        "r": (2, GATES[op] * HIDDEN, HIDDEN),
        "b": (2, 2 * GATES[op] * HIDDEN),
    }
    options = {"linear_before_reset": 1} if op == "GRU" else {}
    node = helper.make_node(op, list(shapes), ["y"], hidden_size=HIDDEN, direction="bidirectional", **options)
    values = [helper.make_tensor_value_info(name, 1, list(shape)) for name, shape in shapes.items()]
    graph = helper.make_graph([node], "g", values, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    program = compile_model(ir.serde.deserialize_model(model))
    leaves = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes.values()]
    ways = [torch.randn(shape, generator=generator) for shape in shapes.values()]

    def derivatives() -> list[torch.Tensor]:
        y = program(*leaves)[0]
        gradients = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        along = sum((gradient * way).sum() for gradient, way in zip(gradients, ways, strict=True))
        return [*gradients, *torch.autograd.grad(along, leaves)]

    fused = derivatives()
    with forward_ad.dual_level():
        stepped = derivatives()
    for fast, slow in zip(fused, stepped, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)
