"""Name the weights that stay float whatever is asked, and why."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from quant_core.errors import name_some
from quant_core.ingest.find_layers import FLOAT_TYPES, QUANTIZABLE_TYPE, picks_alike, weight_operands
from quant_core.ingest.layer import RECURRENT, Layer
from quant_core.ingest.passes.large_constants import FEWEST
from quant_core.ingest.reading.quantized_parts import works_on_codes
from quant_core.ingest.subgraphs import bodies

_SHOWN = 3
_TOO_SMALL = f"what no layer reads is packed from {FEWEST:,} values on, but for masks and grids"
_NO_LAYER = f"not as the weight of a quantizable layer; {_TOO_SMALL}"


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
    owners = _owners(model)
    found = []
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype not in FLOAT_TYPES or len(tensor.shape) < 2:
                continue
            if graph is not model.graph or value.name not in quantizable:
                reason = _reason(value, graph, model.graph, owners)
                found.append(FloatWeight(value.name or "", tuple(tensor.shape.numpy()), reason))
    return tuple(found)


def _owners(model: ir.Model) -> dict[ir.Graph, str]:
    """The control-flow node that holds each subgraph."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return {body: f"{node.op_type} {node.name!r}" for node in nodes for body in bodies(node)}


def _reason(value: ir.Value, graph: ir.Graph, main: ir.Graph, owners: dict[ir.Graph, str]) -> str:
    if graph is not main:
        return f"it is stored inside {owners[graph]}; {_TOO_SMALL}"
    if value.const_value is not None and value.const_value.dtype != QUANTIZABLE_TYPE:
        return f"it is {value.const_value.dtype.name.lower()}; only layers in float types are quantized"
    if value.is_graph_output():
        return "it is a graph output"
    inside = next((node for node, _ in value.uses() if node.graph is not main), None)
    if inside is not None:
        assert isinstance(inside.graph, ir.Graph)  # functions read no initializers of the model
        return f"{inside.op_type} {inside.name!r} reads it inside {owners[inside.graph]}; {_TOO_SMALL}"
    others = [node for node, operand in value.uses() if operand not in weight_operands(node)]
    if not others and not picks_alike([node for node, _ in value.uses()], value):
        picking = ", ".join(f"{node.op_type} {node.name!r}" for node, _ in list(value.uses())[:_SHOWN])
        return f"{picking} pick along different axes of it, or along another than the first of what is multiplied too"
    readers = name_some([f"{node.op_type} {node.name!r}" for node in others], _SHOWN)
    return f"it is read by {readers}, {_why(others[0]) if others else _NO_LAYER}"


def _why(node: ir.Node) -> str:
    if works_on_codes(node.op_type):
        return "a part that is quantized already"
    if node.domain not in {"", "ai.onnx"}:
        return f"an operator of {node.domain}; {_TOO_SMALL}"
    if node.op_type in RECURRENT:
        return "whose weights W and R alone are quantized, not biases and states"
    if node.op_type == "Einsum":
        return f"whose equation is not one product with it, such as MatMul is; {_TOO_SMALL}"
    return _NO_LAYER
