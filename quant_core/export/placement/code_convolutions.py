"""Operators that run on codes as integer convolutions of single channels: batch normalization and averages of windows.

onnxruntime has no integer kernel for a BatchNormalization, and its own for an AveragePool takes ten times as long as in
float. In float either one takes codes made float numbers, channels laid out the other way and back, and rounding. A
depthwise convolution that reads and writes codes computes the same, rounded but once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from quant_core.ingest.passes.channel_affine import channel_affine

_KEEP_CHANNELS = frozenset(
    {
        *("AveragePool", "BatchNormalization", "Clip", "Elu", "Gelu", "GlobalAveragePool", "HardSigmoid"),
        *("HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mish", "Relu", "Sigmoid", "Softplus", "Tanh"),
    }
)
_BROADCAST = frozenset({"Add", "Div", "Mul", "Sub"})
_IMAGE, _CHANNEL_AXIS = 4, 1
_MOST_TAPS = 25
"""Places of a window for each that it moves by: 5 x 5 in steps of 1 took 0.95 of the time in float, 7 x 7 1.01."""
_PLANE = 2  # axes of a window


def is_code_convolution(node: ir.Node, channels: int) -> bool:
    """Tell whether a node computes what a depthwise convolution can.

    Args:
        node: The node, which reads images.
        channels: Their channels.

    Returns:
        True for a BatchNormalization by constants, and an AveragePool whose windows all have the same size.
    """
    if node.op_type == "BatchNormalization":
        affine = channel_affine(node)
        return affine is not None and affine.factor.size == channels
    if node.op_type != "AveragePool" or node.domain:
        return False
    attributes = node.attributes
    window = attributes.get_ints("kernel_shape", [])
    padded = any(attributes.get_ints("pads", []))
    return (
        len(window) == _PLANE
        and math.prod(window) <= _MOST_TAPS * math.prod(attributes.get_ints("strides", [1]))
        and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and not attributes.get_int("ceil_mode", 0)
        and (not padded or attributes.get_int("count_include_pad", 0) == 1)
    )


def image_channels(graph: ir.Graph) -> dict[str, int]:
    """Count the channels of images, as far as the convolutions that make them tell.

    Args:
        graph: The graph.

    Returns:
        Tensor name -> channels, of tensors with four axes.
    """
    found: dict[str, int] = {}
    for node in graph:
        count = None if node.domain else _channels(node, found)
        if count is not None:
            found[str(node.outputs[0].name)] = count
    return found


def _channels(node: ir.Node, known: Mapping[str, int]) -> int | None:
    values = [value for value in node.inputs if value is not None]
    if node.op_type == "Conv":
        held = values[1].const_value
        return None if held is None or len(held.shape) != _IMAGE else int(held.numpy().shape[0])
    if node.op_type in _KEEP_CHANNELS:
        return known.get(str(values[0].name))
    if node.op_type == "Concat" and node.attributes.get_int("axis", 0) != _CHANNEL_AXIS:
        return None
    if node.op_type not in _BROADCAST | {"Concat"}:
        return None
    counts = [
        known.get(str(value.name)) if value.const_value is None else _broadcast(value) for value in values
    ]
    told = [count for count in counts if count is not None]
    if len(told) < len(counts) or all(value.const_value is not None for value in values):
        return None
    return sum(told) if node.op_type == "Concat" else max(told)


def _broadcast(constant: ir.Value) -> int | None:
    """Channels of a constant beside an image, as it is broadcast."""
    held = constant.const_value
    shape = () if held is None else held.numpy().shape
    return None if len(shape) > _IMAGE else (1, 1, 1, *shape)[-_PLANE - 1]
