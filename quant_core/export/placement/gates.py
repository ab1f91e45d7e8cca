"""Activation functions that are products of a tensor and a gate made of it: x Sigmoid(x), x HardSigmoid(x)."""

from __future__ import annotations

import onnx_ir as ir


def gate_of(node: ir.Node) -> ir.Node | None:
    """Find the HardSigmoid or Sigmoid of x where a node is the product of the two.

    Args:
        node: The node.

    Returns:
        The node that makes the gate; None for other nodes.
    """
    if node.op_type != "Mul" or node.domain or len(node.inputs) != 2:
        return None
    for gated, gate in (tuple(node.inputs), tuple(reversed(node.inputs))):
        maker = None if gate is None else gate.producer()
        if maker is not None and maker.op_type in {"HardSigmoid", "Sigmoid"} and maker.inputs[0] is gated:
            return maker
    return None


def is_swish_gate(node: ir.Node) -> bool:
    """Tell whether a node is the Sigmoid of `x Sigmoid(x)`, and of nothing else.

    Args:
        node: The node.

    Returns:
        True if one product alone reads it, of its own input.
    """
    if node.op_type != "Sigmoid" or node.domain or node.outputs[0].is_graph_output():
        return False
    readers = [reader for reader, _ in node.outputs[0].uses()]
    return len(readers) == 1 and readers[0].graph is node.graph and gate_of(readers[0]) is node
