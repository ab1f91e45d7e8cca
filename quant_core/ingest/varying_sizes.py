"""Tensors whose size depends on values: how many there are is known when the network has run, not before."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from quant_core.ingest.subgraphs import bodies, read_inside

_SIZES = {"Shape", "Size"}
_SELECTING = {"NonMaxSuppression", "NonZero", "Unique", "Compress"}
# Operands that set the size of what a node makes.
_SIZING = {
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "TopK": (1,),
}
# What is written into the first operand, which alone sets the size.
_WRITING = {"Scatter", "ScatterElements", "ScatterND", "TensorScatter"}


def varying_tensors(model: ir.Model) -> frozenset[str]:
    """Find the tensors whose size may depend on what the network computes.

    Args:
        model: The model, its nodes in order.

    Returns:
        Names of what lies behind a selection, as the rows do that a mixture of experts sends to one expert, or has a
        size that is computed from what the network is given, other than from its sizes. What is only written into a
        tensor leaves its size alone.
    """
    computed: set[ir.Value | None] = set(model.graph.inputs)
    varying: set[ir.Value | None] = set()
    _go_through(model.graph, computed, varying)
    return frozenset(str(value.name) for value in varying if value is not None)


def _go_through(graph: ir.Graph, computed: set[ir.Value | None], varying: set[ir.Value | None]) -> None:
    for node in graph:
        if node.op_type in _SIZES:
            continue
        for body in bodies(node):
            for found in (computed, varying):
                if not found.isdisjoint(node.inputs):
                    found.update(body.inputs)
            _go_through(body, computed, varying)
        operands = [*node.inputs, *read_inside(node)]
        if not computed.isdisjoint(operands):
            computed.update(node.outputs)
        sized_by = operands[:1] if node.op_type in _WRITING else operands
        if not varying.isdisjoint(sized_by) or _makes_varying_size(node, computed):
            varying.update(node.outputs)


def _makes_varying_size(node: ir.Node, computed: Collection[ir.Value | None]) -> bool:
    def depends(place: int) -> bool:
        return place < len(node.inputs) and node.inputs[place] in computed

    if node.op_type == "Slice":
        # A window that moves with the values keeps its size where both of its ends move.
        return depends(1) != depends(2)
    places = range(len(node.inputs)) if node.op_type in _SELECTING else _SIZING.get(node.op_type, ())
    return any(map(depends, places))
