"""Tensors whose size depends on values: how many there are is known when the network has run, not before."""

from __future__ import annotations

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


def size_depends_on_values(value: ir.Value) -> bool:
    """Tell whether a tensor's size may depend on what the network computes.

    Args:
        value: The tensor.

    Returns:
        True behind a selection, as of the rows that a mixture of experts sends to one expert, and where a size is
        computed from what the network is given, other than its sizes. What is only written into a tensor leaves its
        size alone.
    """
    return any(_makes_varying_size(node) for node in _behind(value, sizes_only=True))


def _makes_varying_size(node: ir.Node) -> bool:
    def depends(place: int) -> bool:
        operand = node.inputs[place] if place < len(node.inputs) else None
        return operand is not None and _reads_input(operand)

    if node.op_type == "Slice":
        # A window that moves with the values keeps its size where both of its ends move.
        return depends(1) != depends(2)
    places = range(len(node.inputs)) if node.op_type in _SELECTING else _SIZING.get(node.op_type, ())
    return any(map(depends, places))


def _reads_input(value: ir.Value) -> bool:
    return value.is_graph_input() or any(
        operand is not None and operand.is_graph_input() for node in _behind(value) for operand in node.inputs
    )


def _behind(value: ir.Value, *, sizes_only: bool = False) -> list[ir.Node]:
    # The nodes a value is computed from, other than through sizes alone; or those that its size may come from.
    found: dict[int, ir.Node] = {}
    open_ends = [value]
    while open_ends:
        node = open_ends.pop().producer()
        if node is not None and id(node) not in found and node.op_type not in {"Shape", "Size"}:
            found[id(node)] = node
            operands = node.inputs[:1] if sizes_only and node.op_type in _WRITING else node.inputs
            open_ends += [operand for operand in operands if operand is not None]
    return list(found.values())
