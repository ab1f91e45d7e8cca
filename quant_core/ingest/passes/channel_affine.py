"""Read nodes that scale and shift channels by constants: batch normalization, and arithmetic behind convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import constant_tensor

_CONVOLUTIONS = {"Conv", "ConvTranspose"}


@dataclass(frozen=True, eq=False)
class ChannelAffine:
    """What a node does to channel c of its input: `y_c = factor_c * x_c + offset_c`.

    Attributes:
        source: The input.
        factor: Factor per channel, float64, C.
        offset: Offset per channel, float64, C.
        shift: The constant whose name a bias made of the offset may take.
    """

    source: ir.Value
    factor: np.ndarray
    offset: np.ndarray
    shift: ir.Value


def channel_affine(node: ir.Node) -> ChannelAffine | None:
    """Read one node.

    Args:
        node: Any node.

    Returns:
        What it does per channel, or None if it is anything else than a constant scale and shift.
    """
    if node.domain:
        return None
    if node.op_type == "BatchNormalization":
        return _batch_normalization(node)
    if node.op_type in {"Mul", "Add", "Sub", "Div"}:
        return _elementwise(node)
    return None


def _batch_normalization(node: ir.Node) -> ChannelAffine | None:
    """With s = scale / sqrt(var + epsilon), the factor is s and the offset shift - mean * s."""
    statistics_are_read = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    constants = [_values(value) for value in node.inputs[1:5]]
    arrays = [array for array in constants if array is not None]
    source, shift = node.inputs[0], node.inputs[2]
    if node.attributes.get_int("training_mode", 0) or statistics_are_read or len(arrays) != 4:
        return None
    scale, shift_values, mean, variance = arrays
    variance = variance + node.attributes.get_float("epsilon", 1e-5)
    if source is None or shift is None or (variance <= 0).any():
        return None
    factor = scale / np.sqrt(variance)
    return ChannelAffine(source, factor, shift_values - mean * factor, shift)


def _elementwise(node: ir.Node) -> ChannelAffine | None:
    for position in (1, 0) if node.op_type in {"Mul", "Add"} else (1,):
        source, operand = node.inputs[1 - position], node.inputs[position]
        layer = source.producer() if source is not None else None
        factors = _values(operand)
        if source is None or operand is None or layer is None or factors is None:
            continue
        if layer.op_type not in _CONVOLUTIONS or layer.domain:
            continue
        values = _per_channel(factors, layer)
        if values is None:
            continue
        ones, zeros = np.ones_like(values), np.zeros_like(values)
        match node.op_type:
            case "Mul":
                return ChannelAffine(source, values, zeros, operand)
            case "Div":
                return None if (values == 0).any() else ChannelAffine(source, 1 / values, zeros, operand)
            case "Add":
                return ChannelAffine(source, ones, values, operand)
            case _:
                return ChannelAffine(source, ones, -values, operand)
    return None


def _per_channel(constant: np.ndarray, layer: ir.Node) -> np.ndarray | None:
    """Give one value a channel of a convolution's output, if broadcasting makes that of a constant."""
    weight = layer.inputs[1]
    if weight is None or weight.const_value is None:
        return None
    shape = weight.const_value.shape.numpy()
    channels = shape[0] if layer.op_type == "Conv" else shape[1] * layer.attributes.get_int("group", 1)
    if constant.ndim > len(shape):
        return None
    aligned = constant.reshape([1] * (len(shape) - constant.ndim) + list(constant.shape))
    if aligned.size not in {1, channels} or aligned.shape[1] != aligned.size:
        return None
    return np.broadcast_to(aligned.reshape(-1), (channels,))


def _values(value: ir.Value | None) -> np.ndarray | None:
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy().astype(np.float64)
