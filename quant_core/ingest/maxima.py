"""Tensors whose largest values alone count."""

from __future__ import annotations

import math

import onnx_ir as ir

_MAXIMA = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax"})
_PLACES = 16
"""Of a window from which its maximum counts as one over many places; of reductions they are not asked."""
_ELEMENTWISE = frozenset(
    "Add BatchNormalization Cast Celu Clip Div Elu Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Mul PRelu Relu "
    "Selu Sigmoid Softplus Sub Swish Tanh".split()
)
_MOVING = frozenset({"Flatten", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})


def before_maxima(model: ir.Model) -> frozenset[str]:
    """Find the tensors that lie in front of a maximum over many places.

    Between them and the maximum each element goes its own way: nothing sums or averages over places. An error in any
    value but the largest ones is then worth nothing at the outputs.

    Args:
        model: The normalised model.

    Returns:
        Names of what such maxima read, and of what that is made of element by element.
    """
    found: set[str] = set()
    open_ends = [node.inputs[0] for node in model.graph if _is_maximum(node)]
    while open_ends:
        value = open_ends.pop()
        if value is None or value.name is None or value.name in found or value.const_value is not None:
            continue
        found.add(value.name)
        producer = value.producer()
        if producer is None or producer.domain:
            continue
        if producer.op_type in _ELEMENTWISE:
            open_ends += producer.inputs
        elif producer.op_type in _MOVING or producer.op_type in _MAXIMA:
            open_ends.append(producer.inputs[0])
    return frozenset(found)


def _is_maximum(node: ir.Node) -> bool:
    if node.domain or node.op_type not in _MAXIMA:
        return False
    if node.op_type != "MaxPool":
        return True
    return math.prod(node.attributes["kernel_shape"].as_ints()) >= _PLACES
