"""Questions about operators that exporters took apart."""

from __future__ import annotations

import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor


def only_reader(node: ir.Node) -> ir.Node | None:
    """Find the node of the same graph that alone reads what a node writes.

    Args:
        node: The node.

    Returns:
        The reader; None where there are others, or it belongs to no standard operator.
    """
    value = node.outputs[0]
    readers = [reader for reader, _ in value.uses()]
    if len(readers) != 1 or value.is_graph_output() or readers[0].graph is not node.graph:
        return None
    return None if readers[0].domain else readers[0]


def the_number(value: ir.Value | None) -> float | None:
    """Tell the number that a constant holds for all channels.

    Args:
        value: Perhaps a constant.

    Returns:
        The number; None where it is none, or holds several.
    """
    tensor = constant_tensor(value)
    if tensor is None:
        return None
    array = tensor.numpy()
    return float(array.reshape(-1)[0]) if array.size == 1 and array.ndim <= 1 else None
