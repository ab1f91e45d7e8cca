"""Operators that only move or pick values: they run on codes and keep their input's grid."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_MOVERS = frozenset(
    {
        "DepthToSpace",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Pad",
        "ReduceMax",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_SIZES = 3  # input of a Resize


def moves_codes(node: ir.Node) -> bool:
    """Tell whether what a node writes are values that it reads, or zeros, and onnxruntime moves bytes as well.

    Args:
        node: The node.

    Returns:
        True if so; its codes are then the codes of its first input.
    """
    if node.domain or node.op_type not in _MOVERS or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "MaxPool":
        return len(node.outputs) == 1
    if node.op_type == "Pad":
        return _fills_with_zeros(node)
    if node.op_type == "Resize":
        return _picks_nearest(node)
    return True


def fills(node_op: str, mode: str) -> bool:
    """Tell whether an operator writes values of its own, which then are the code of zero.

    Args:
        node_op: Its type.
        mode: Its attribute `mode`, `constant` where it has none.

    Returns:
        True for a Pad with a constant.
    """
    return node_op == "Pad" and mode == "constant"


def _fills_with_zeros(node: ir.Node) -> bool:
    if not fills(node.op_type, _mode(node, "constant")):
        return True
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return True
    return value.const_value is not None and not np.any(value.const_value.numpy())


def _picks_nearest(node: ir.Node) -> bool:
    # A crop writes a value of its own beside the image.
    crops = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    sized = any(value is not None for value in node.inputs[2 : _SIZES + 1])
    return _mode(node, "nearest") == "nearest" and not crops and sized


def _mode(node: ir.Node, default: str) -> str:
    return str(node.attributes.get_string("mode", default))
