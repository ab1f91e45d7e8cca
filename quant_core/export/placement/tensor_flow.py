"""What flows where: questions about the tensors and nodes around a layer."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.subgraphs import read_inside


def is_dequantized(value: ir.Value | None) -> bool:
    """Tell whether a tensor comes from codes that the model held before.

    Args:
        value: The tensor.

    Returns:
        True if a DequantizeLinear wrote it.
    """
    node = None if value is None else value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def feeds_quantizer(value: ir.Value) -> bool:
    """Tell whether nothing reads a tensor but one QuantizeLinear that the model held before.

    Args:
        value: The tensor.

    Returns:
        True if so.
    """
    readers = [node for node, _ in value.uses()]
    return len(readers) == 1 and readers[0].op_type == "QuantizeLinear" and not value.is_graph_output()


def value_name(value: ir.Value | None) -> str:
    """Give the name of a tensor that has one.

    Args:
        value: The tensor.

    Returns:
        Its name.
    """
    assert value is not None
    assert value.name is not None
    return value.name


def is_rectifier(node: ir.Node) -> bool:
    """Tell whether a node only cuts off what lies below zero, and perhaps what lies above a constant.

    Args:
        node: The node.

    Returns:
        True for Relu and for Clip from zero.
    """
    if node.domain:
        return False
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip" or len(node.inputs) < 2:
        return False
    low = node.inputs[1]
    return low is not None and low.const_value is not None and float(low.const_value.numpy()) == 0.0


def captured_names(graph: ir.Graph) -> frozenset[str]:
    """List what subgraphs read from outside; such tensors must go on existing in float.

    Args:
        graph: The graph.

    Returns:
        Tensor names.
    """
    return frozenset(str(value.name) for node in graph for value in read_inside(node))


def tensor_order(graph: ir.Graph) -> list[str]:
    """List the tensors of a graph as they are computed.

    Args:
        graph: The graph.

    Returns:
        Names of its inputs and of what its nodes write.
    """
    names = [value_name(value) for value in graph.inputs]
    names += [str(value.name) for node in graph for value in node.outputs if value.name]
    return names
