"""Between which values an operator keeps what it writes."""

from __future__ import annotations

import math

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor

_BETWEEN = {"HardSigmoid": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0)}


def value_bounds(model: ir.Model) -> dict[str, tuple[float, float]]:
    """Find the tensors that cannot reach beyond an end, whatever the samples.

    Args:
        model: The normalised model.

    Returns:
        Name of what a Clip by constants or an activation function with an upper end writes -> both ends, infinite
        where there is none.
    """
    found = {}
    for node in model.graph:
        name = str(node.outputs[0].name)
        if node.domain:
            continue
        if node.op_type in _BETWEEN:
            found[name] = _BETWEEN[node.op_type]
        elif node.op_type == "Clip":
            found[name] = _end(node, 1, -math.inf), _end(node, 2, math.inf)
    return found


def _end(node: ir.Node, place: int, default: float) -> float:
    held = constant_tensor(node.inputs[place]) if place < len(node.inputs) else None
    return default if held is None else float(held.numpy().item())
