"""Name the weights that stay float whatever is asked, and why."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from quant_core.ingest.find_layers import FLOAT_TYPES, QUANTIZABLE_TYPE, weight_operands
from quant_core.ingest.layer import Layer

_SHOWN = 3


@dataclass(frozen=True)
class FloatWeight:
    """A weight that is no layer.

    Attributes:
        name: Initializer name.
        shape: Its shape.
        reason: Why it stays float, in words.
    """

    name: str
    shape: tuple[int, ...]
    reason: str


def find_float_weights(model: ir.Model, layers: tuple[Layer, ...]) -> tuple[FloatWeight, ...]:
    """Collect the float matrices and tables that are not among the layers.

    Args:
        model: A normalised model.
        layers: What `find_layers` gave for it.

    Returns:
        Weights of rank 2 or more, in the order the graphs store them.
    """
    quantizable = {layer.weight for layer in layers}
    found = []
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype not in FLOAT_TYPES or len(tensor.shape) < 2:
                continue
            if graph is not model.graph or value.name not in quantizable:
                reason = _reason(value, model.graph)
                found.append(FloatWeight(value.name or "", tuple(tensor.shape.numpy()), reason))
    return tuple(found)


def _reason(value: ir.Value, main: ir.Graph) -> str:
    if value.const_value is not None and value.const_value.dtype != QUANTIZABLE_TYPE:
        return f"it is {value.const_value.dtype.name.lower()}; only float32 weights are quantized"
    if value.is_graph_output():
        return "it is a graph output"
    if any(node.graph is not main for node, _ in value.uses()):
        return "a subgraph of If, Loop or Scan reads it"
    others = [node for node, operand in value.uses() if operand not in weight_operands(node)]
    readers = ", ".join(f"{node.op_type} {node.name!r}" for node in others[:_SHOWN])
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return f"it is read by {readers}{more}, not as the weight of a quantizable layer"
