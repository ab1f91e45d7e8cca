"""The stored form of one layer's weight: packed codes, and the nodes that make them what the operator reads.

onnxruntime folds all of it when it loads the file, except DequantizeLinear, which it fuses into the integer kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from quant_core.codes import QuantizedWeight, channels_first
from quant_core.codes.number_formats import element
from quant_core.errors import InternalError
from quant_core.export.kernels.input_layout import AS_IT_IS, InputLayout
from quant_core.export.patterns.element_patterns import (
    as_values,
    stored_elements,
    stored_scales,
    stored_zero_points,
)
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.ingest.layer import Layer

_MATRIX = 2  # axes


def write_int8(writer: GraphWriter, layer: Layer, weight: QuantizedWeight, *, transpose: bool = False) -> str:
    """Store codes and append what turns them into int8.

    Args:
        writer: Where to write.
        layer: The layer.
        weight: Its codes.
        transpose: Store a matrix the other way round.

    Returns:
        Name of the int8 tensor.

    Raises:
        InternalError: If integer kernels cannot take the weight.
    """
    if not weight.suits_int8_kernels:
        raise InternalError(
            f"no integer kernel takes blocks, floating codes or zero points of 8 bits, as {layer.name} has"
        )
    if weight.outliers is None and weight.narrow is None and not weight.trellis:
        codes = np.ascontiguousarray(weight.codes.T) if transpose else weight.codes
        stored = writer.stored_codes(layer.weight, codes, weight.bits)
    else:  # outliers are counted, channels ordered and paths run as the weight lies
        stored = stored_elements(writer, layer.weight, weight, weight.codes)
        stored = writer.node("Transpose", [stored]) if transpose else stored
    if weight.zero_point is None:
        return stored
    shape = weight.spread(weight.scale).shape
    zero_points = stored_zero_points(writer, layer.weight, weight, shape[::-1] if transpose else shape)
    return writer.node("Sub", [stored, str(zero_points)])


def write_qdq(
    writer: GraphWriter, layer: Layer, weight: QuantizedWeight, layout: InputLayout = AS_IT_IS
) -> str:
    """Store a weight for an integer or FP8 kernel that is made by fusing DequantizeLinear.

    Args:
        writer: Where to write.
        layer: The layer.
        weight: Its codes and scales.
        layout: How its kernel reads its input, and so its weight.

    Returns:
        Name of the dequantized tensor.
    """
    axis: dict[str, Any] = {} if weight.axis in {None, 1} else {"axis": weight.axis}
    if weight.format != "int":
        stored = writer.stored_typed(layer.weight, weight.codes, weight.bits, element(weight.format))
        return writer.node("DequantizeLinear", [stored, writer.constant(weight.scale)], **axis)
    codes = layout.lay_out_weight(writer, write_int8(writer, layer, weight), layer.shape)
    inputs = [codes, writer.constant(weight.scale)]
    if layer.op == "Gemm":  # onnxruntime takes its integer Gemm only when the zero point is written out
        inputs.append(writer.constant(np.zeros(weight.scale.shape, dtype=np.int8)))
    return writer.node("DequantizeLinear", inputs, **axis)


def product_scale(layer: Layer, weight: QuantizedWeight) -> npt.NDArray[np.float32]:
    """Lay out the steps of a matrix, or of a stack of matrices, as what it is multiplied with comes out.

    Args:
        layer: A Gemm or MatMul.
        weight: Its codes and scales, no blocks.

    Returns:
        `[outputs]`, `[..., 1, outputs]` for a stack, `[]` where there is one step.
    """
    is_matrix = len(layer.shape) == _MATRIX or weight.axis is None
    steps: npt.NDArray[np.float32] = weight.scale if is_matrix else weight.spread(weight.scale)
    return steps


def write_float(writer: GraphWriter, layer: Layer, weight: QuantizedWeight) -> str:
    """Store a weight packed for an operator that computes in float; everything folds to a float constant.

    Args:
        writer: Where to write.
        layer: The layer.
        weight: Its codes and scales.

    Returns:
        Name of the float tensor.
    """
    if weight.block_size is not None:
        return _write_blocks(writer, layer, weight, weight.block_size)
    shape = tuple(weight.spread(weight.scale).shape)
    values = as_values(writer, weight, stored_elements(writer, layer.weight, weight, weight.codes))
    values = _less_zero_points(writer, values, stored_zero_points(writer, layer.weight, weight, shape))
    return writer.node("Mul", [values, stored_scales(writer, weight, shape)])


@dataclass(frozen=True)
class StoredTable:
    """Names of a stored table, by row.

    Attributes:
        codes: The int8 codes.
        scales: The float scales; one for all rows where the weight has no axis.
        zero_points: The int8 zero points; None where the grid is symmetric.
    """

    codes: str
    scales: str
    zero_points: str | None


def write_table(writer: GraphWriter, layer: Layer, weight: QuantizedWeight) -> StoredTable:
    """Store a table whose rows are looked up.

    Args:
        writer: Where to write.
        layer: The layer.
        weight: Its codes and scales; blocks lie in the rows of a matrix that is read along its first axis.

    Returns:
        Its parts.
    """
    # Gather takes no 8-bit floats.
    stored = writer.stored_codes(layer.weight, weight.codes, weight.bits)
    ones = (1,) * (len(layer.shape) - 1 - gathered(layer))
    shape = weight.scale.shape if weight.block_size or weight.axis is None else (-1, *ones)
    zero_points = stored_zero_points(writer, layer.weight, weight, shape)
    return StoredTable(stored, stored_scales(writer, weight, shape), zero_points)


def gathered(layer: Layer) -> int:
    """Name the axis that a table is read along.

    Args:
        layer: A layer that Gather nodes alone read.

    Returns:
        The axis; all of them pick along the same.
    """
    return layer.axis if isinstance(layer.axis, int) else 0


def write_rows(
    writer: GraphWriter, layer: Layer, weight: QuantizedWeight, table: StoredTable, indices: str, name: str
) -> tuple[str, str]:
    """Append the look-up of a stored table's rows and of their scales.

    Args:
        writer: Where to write.
        layer: The layer.
        weight: Its codes and scales.
        table: Where they are stored; all nodes that read the table share it.
        indices: Name of the index tensor.
        name: Name of the Gather node.

    Returns:
        Names of the float codes and of the scales to multiply them with.
    """
    axis: dict[str, Any] = {"axis": gathered(layer)} if gathered(layer) else {}
    rows = writer.node("Gather", [table.codes, indices], name=name, **axis)
    values = as_values(writer, weight, rows, integers=True)
    blocks = None
    if weight.block_size is not None:
        blocks = _block_of_each(writer, layer.shape[1], weight.block_size)

    def looked_up(table: str) -> str:
        rows = table if weight.axis is None else writer.node("Gather", [table, indices])
        return rows if blocks is None else writer.node("Gather", [rows, blocks], axis=-1)

    values = _less_zero_points(writer, values, table.zero_points and looked_up(table.zero_points))
    return values, looked_up(table.scales)


def _write_blocks(writer: GraphWriter, layer: Layer, weight: QuantizedWeight, size: int) -> str:
    """Codes are stored channel by channel, as blocks lie; where the last block is short, steps are laid out instead."""
    channels, order = len(weight.scale), channels_first(weight.codes.ndim, weight.axis)
    moved = np.ascontiguousarray(weight.codes.transpose(order))
    length = moved.size // channels
    size = min(size, length)
    whole = length % size == 0
    codes = moved.reshape((channels, length // size, size) if whole else (channels, length))
    shape = (*weight.scale.shape, 1) if whole else weight.scale.shape
    values = as_values(writer, weight, stored_elements(writer, layer.weight, weight, codes))
    zero_points = stored_zero_points(writer, layer.weight, weight, shape)
    scales = stored_scales(writer, weight, shape)
    if not whole:
        blocks = _block_of_each(writer, length, size)
        zero_points = zero_points and writer.node("Gather", [zero_points, blocks], axis=1)
        scales = writer.node("Gather", [scales, blocks], axis=1)
    result = writer.node("Mul", [_less_zero_points(writer, values, zero_points), scales])
    if codes.shape != moved.shape:
        result = writer.node("Reshape", [result, writer.constant(np.array(moved.shape, dtype=np.int64))])
    if list(order) != sorted(order):
        result = writer.node("Transpose", [result], perm=[order.index(at) for at in range(len(order))])
    return result


def _less_zero_points(writer: GraphWriter, values: str, zero_points: str | None) -> str:
    if zero_points is None:
        return values
    return writer.node("Sub", [values, writer.node("Cast", [zero_points], to=onnx.TensorProto.FLOAT)])


def _block_of_each(writer: GraphWriter, length: int, size: int) -> str:
    """The block that each of some consecutive weights belongs to: 0, 0, ..., 1, 1, ..."""
    start, stop, step, block = (writer.constant(np.array(n, dtype=np.int32)) for n in (0, length, 1, size))
    return writer.node("Div", [writer.node("Range", [start, stop, step]), block])
