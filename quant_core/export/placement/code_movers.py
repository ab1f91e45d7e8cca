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
_PLANE = 4  # axes of an image
_MOST_REPEATED = 16
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


def repetitions(node: ir.Node) -> tuple[int, int] | None:
    """Tell how often a Resize that does nothing else repeats each row and each column of an image.

    Args:
        node: A node that moves codes.

    Returns:
        Two counts; None for any other node.
    """
    scales = node.inputs[_SIZES - 1] if node.op_type == "Resize" and len(node.inputs) >= _SIZES else None
    held = None if scales is None else scales.const_value
    values = [] if held is None else held.numpy().tolist()
    if len(values) != _PLANE or values[:2] != [1, 1] or "axes" in node.attributes:
        return None
    counts = [round(value) for value in values[2:]]
    if counts != values[2:] or not all(1 <= count <= _MOST_REPEATED for count in counts):
        return None
    return (counts[0], counts[1]) if all(_repeats(node, count) for count in counts) else None


def _repeats(node: ir.Node, count: int) -> bool:
    """Whether each place of the output takes the place that lies over it."""
    places = np.arange(4 * count)
    where = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    nearest = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    if where == "asymmetric":
        read = places / count
    elif where in {"half_pixel", "pytorch_half_pixel"}:
        read = (places + 0.5) / count - 0.5
    else:
        return False
    rounded = {
        "floor": np.floor(read),
        "round_prefer_floor": np.ceil(read - 0.5),
        "round_prefer_ceil": np.floor(read + 0.5),
    }.get(str(nearest))
    return rounded is not None and np.array_equal(np.clip(rounded, 0, None), places // count)


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
