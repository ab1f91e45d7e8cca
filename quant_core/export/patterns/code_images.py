"""Nodes on images of codes, for operators that are no layers.

Depthwise convolutions stand for a BatchNormalization and an AveragePool. Rows and columns are repeated with channels
last: onnxruntime moves the layout of integer convolutions past a Resize, and then copies bytes one by one, 64 channels
of 28 x 28 to twice the height and width in 563 us, where copies of the whole side by side take 46 (1.31, one thread).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from quant_core.export.storage.graph_nodes import GraphNodes

_CODE = 127
"""Of the factor of every channel: biases then count in 127ths of a step of the input."""
_LARGEST_BIAS = 2.0**30
_MOVES = frozenset({"dilations", "pads", "strides"})
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


@dataclass(frozen=True, eq=False)
class CodedImage:
    """Codes as floats, of which a channel c stands for `factor_c x + offset_c`.

    Attributes:
        name: The tensor in the file.
        step: The step by which it is dequantized.
        factor: Factor per channel.
        offset: Offset per channel.
    """

    name: str
    step: float
    factor: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]


def write_code_convolution(
    writer: GraphNodes,
    node: onnx.NodeProto,
    image: CodedImage,
    output: str,
    constants: Sequence[npt.NDArray[np.float32]],
) -> None:
    """Append the convolution that stands for a node.

    Args:
        writer: Where to write.
        node: The node.
        image: What it reads; of an AveragePool codes of one grid.
        output: What it writes, which is rounded behind it.
        constants: Of a BatchNormalization scale, shift, mean and variance.
    """
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    channels, biases = len(image.factor), list[str]()
    if node.op_type == "AveragePool":
        window, code = list(attributes["kernel_shape"]), 1
        scale = np.full(channels, 1 / math.prod(window))
    else:
        window, code = [1, 1], _CODE
        factor, offset = _affine(constants, attributes.pop("epsilon", 1e-5))
        factor, offset = factor * image.factor, offset + factor * image.offset
        # A channel that its bias makes up takes a step that holds this; its products then come to next to nothing.
        least = np.maximum(np.abs(offset) / (_LARGEST_BIAS * image.step), np.finfo(np.float32).tiny)
        scale = np.copysign(np.maximum(np.abs(factor) / code, least), factor)
        biases.append(writer.constant(offset.astype(np.float32)))
    shape = writer.constant(np.array([channels, 1, *window], dtype=np.int64))
    value = onnx.helper.make_tensor("", onnx.TensorProto.INT8, [1], [code])
    codes = writer.node("ConstantOfShape", [shape], value=value)
    weight = writer.node("DequantizeLinear", [codes, writer.constant(scale.astype(np.float32))], axis=0)
    moves = {key: held for key, held in attributes.items() if key in _MOVES}
    writer.node("Conv", [image.name, weight, *biases], [output], name=node.name, group=channels, **moves)


def _affine(
    constants: Sequence[npt.NDArray[np.float32]], epsilon: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    scale, shift, mean, variance = (each.astype(np.float64) for each in constants)
    factor = scale / np.sqrt(variance + epsilon)
    return factor, shift - mean * factor


def write_repeated(writer: GraphNodes, node: onnx.NodeProto, codes: str, times: tuple[int, int]) -> str:
    """Append what repeats rows and columns, under the name of the Resize that it stands for.

    Args:
        writer: Where to write.
        node: The Resize.
        codes: Name of the codes, `[samples, channels, height, width]`.
        times: How often each row and each column.

    Returns:
        Name of the larger image.
    """
    rows, columns = times
    image = writer.node("Transpose", [codes], perm=_LAST)
    sizes = writer.node(
        "Mul", [writer.node("Shape", [image]), writer.constant(np.array([1, rows, columns, 1]))]
    )
    wide = writer.node("Concat", [image] * columns, axis=3)
    high = writer.node("Concat", [wide] * rows, axis=2)
    return writer.node("Transpose", [writer.node("Reshape", [high, sizes])], name=node.name, perm=_FIRST)
