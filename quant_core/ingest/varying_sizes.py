"""Tensors whose size depends on values: how many there are is known when the network has run, not before."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

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


_SIZES = {"Shape", "Size"}


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
    for node in model.graph:
        if node.op_type in _SIZES:
            continue
        if any(operand in computed for operand in node.inputs):
            computed.update(node.outputs)
        sized_by = node.inputs[:1] if node.op_type in _WRITING else node.inputs
        if any(operand in varying for operand in sized_by) or _makes_varying_size(node, computed):
            varying.update(node.outputs)
    return frozenset(str(value.name) for value in varying if value is not None)


def _makes_varying_size(node: ir.Node, computed: Collection[ir.Value | None]) -> bool:
    def depends(place: int) -> bool:
        return place < len(node.inputs) and node.inputs[place] in computed

    if node.op_type == "Slice":
        # A window that moves with the values keeps its size where both of its ends move.
        return depends(1) != depends(2)
    places = range(len(node.inputs)) if node.op_type in _SELECTING else _SIZING.get(node.op_type, ())
    return any(map(depends, places))
