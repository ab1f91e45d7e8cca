"""Matrix products on codes in blocks: onnxruntime's `com.microsoft.MatMulNBits`, its fastest form for single rows.

Weights stay packed in memory. The kernel is told `accuracy_level` 4: it rounds each row of its input to 8 bits, with
one step a block, `s = max|x| / 127`, and the simulation does the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from quant_core.codes import QuantizedWeight
from quant_core.errors import InternalError
from quant_core.export.patterns.element_patterns import stored_scales
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.placement.forms import is_plain_product, is_right_operand
from quant_core.export.storage.packing import Plane, pack_bits
from quant_core.ingest.layer import Layer
from quant_core.spec import WeightGrid

NBITS_DOMAIN = "com.microsoft"
_ACCURACY_LEVEL = 4
# Found by running every pair in onnxruntime 1.31 on a CPU: others compute in float, or throw.
_INTEGER_KERNELS = {
    2: frozenset({32, 64, 128}),
    4: frozenset({16, 32, 64, 128, 256}),
    8: frozenset({16, 32, 64, 128, 256}),
}


def has_nbits_kernel(layer: Layer, model: ir.Model, bits: int, grid: WeightGrid) -> bool:
    """Tell whether onnxruntime multiplies a layer's codes in blocks as they are.

    Args:
        layer: The layer.
        model: The normalised model it belongs to.
        bits: Bits of its weight.
        grid: What its weight is rounded to.

    Returns:
        True if so.
    """
    return (
        grid.format == "int"
        and grid.block in _INTEGER_KERNELS.get(bits, ())
        and layer.axis is not None
        and len(layer.shape) == 2
        and {use.op for use in layer.uses} <= {"MatMul", "Gemm"}
        and is_right_operand(layer, model)
        and is_plain_product(layer, model)
    )


def write_nbits(writer: GraphWriter, layer: Layer, weight: QuantizedWeight) -> tuple[str, ...]:
    """Store a matrix as MatMulNBits reads it: output by output, block by block, codes counting from 0.

    Args:
        writer: Where to write.
        layer: The layer.
        weight: Its codes in blocks of inputs.

    Returns:
        Names of codes, steps and, where the grid is asymmetric, zero points.

    Raises:
        InternalError: If it has no blocks.
    """
    size = weight.block_size
    if size is None or weight.axis is None:
        raise InternalError(f"{layer.name} has no blocks")
    rows = weight.codes if weight.axis == 0 else weight.codes.T
    outputs, inputs = rows.shape
    blocks, offset = -(-inputs // size), 1 << (weight.bits - 1)
    padded = np.zeros((outputs, blocks * size), dtype=np.int8)
    padded[:, :inputs] = rows
    (plane,) = writer.pack((padded.astype(np.int16) + offset).astype(np.uint8).view(np.int8), weight.bits)
    shape = (outputs, blocks, size * weight.bits // 8)
    names = [
        writer.store(layer.weight, replace(plane, dtype=onnx.TensorProto.UINT8, dims=shape)),
        stored_scales(writer, weight, (outputs, blocks)),
    ]
    if weight.zero_point is not None:
        zero_points = _packed_rows(weight.zero_point, weight.bits, offset)
        stored = Plane(".zp", onnx.TensorProto.UINT8, zero_points.shape, zero_points.tobytes())
        names.append(writer.store(layer.weight + stored.suffix, stored))
    return tuple(names)


def nbits_attributes(layer: Layer, weight: QuantizedWeight) -> dict[str, int]:
    """Give the attributes of the node.

    Args:
        layer: The layer.
        weight: Its codes in blocks.

    Returns:
        K, N, bits, block_size and accuracy_level.

    Raises:
        InternalError: If it has no blocks.
    """
    if weight.block_size is None or not isinstance(weight.axis, int):
        raise InternalError(f"{layer.name} has no blocks")
    return {
        "K": layer.shape[1 - weight.axis],
        "N": layer.shape[weight.axis],
        "bits": weight.bits,
        "block_size": weight.block_size,
        "accuracy_level": _ACCURACY_LEVEL,
    }


def _packed_rows(zero_point: npt.NDArray[np.int8], bits: int, offset: int) -> npt.NDArray[np.uint8]:
    """Zero points packed output by output; each output starts a new byte."""
    outputs, blocks = zero_point.shape
    per_byte = 8 // bits
    padded = np.zeros((outputs, -(-blocks // per_byte) * per_byte), dtype=np.uint8)
    padded[:, :blocks] = (zero_point.astype(np.int16) + offset).astype(np.uint8)
    return pack_bits(padded, bits).reshape(outputs, -1)
