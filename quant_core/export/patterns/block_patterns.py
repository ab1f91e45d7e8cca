"""Weights of matrix products read in blocks: one scale for a run of consecutive inputs of each output."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx

from quant_core.codes import QuantizedWeight
from quant_core.codes.number_formats import element, nearest_code
from quant_core.errors import InternalError
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.storage.packing import Plane
from quant_core.ingest.layer import Layer

BLOCK_SIZES = (128, 64, 32, 16)
"""Sizes that a matrix with one scale a channel is cut into, the first that fills its inputs."""


def block_of(layer: Layer, block_size: int | None = None, sizes: Collection[int] = BLOCK_SIZES) -> int | None:
    """Find the block a matrix is cut into.

    Args:
        layer: A layer with a matrix.
        block_size: Size of the blocks that its scales belong to; None where there is one a channel, which every block
            of the channel then repeats.
        sizes: Sizes that may be chosen from.

    Returns:
        Inputs in a block; None if whole blocks do not fill the inputs.
    """
    if len(layer.shape) != 2 or not isinstance(layer.axis, int):
        return None
    inputs = layer.shape[1 - layer.axis]
    wanted = (block_size,) if block_size else BLOCK_SIZES
    return next((size for size in wanted if inputs % size == 0 and size in sizes), None)


def write_blocks(writer: GraphWriter, layer: Layer, weight: QuantizedWeight) -> str:
    """Store a matrix for DequantizeLinear in blocks.

    Args:
        writer: Where to write.
        layer: The layer.
        weight: Its codes and scales, symmetric; integers or NVFP4.

    Returns:
        Name of the dequantized matrix.

    Raises:
        InternalError: If whole blocks do not fill the matrix.
    """
    size = block_of(layer, weight.block_size, {weight.block_size or 0, *BLOCK_SIZES})
    if size is None or not isinstance(layer.axis, int):
        raise InternalError(f"{layer.name} has no blocks of one size")
    inputs = 1 - layer.axis
    scale = weight.scale
    if weight.block_size is None:  # of a channel, or of the whole matrix
        blocks = weight.codes.shape[inputs] // size
        scale = np.broadcast_to(scale.reshape(-1, 1), (weight.codes.shape[layer.axis], blocks))
    scale = np.ascontiguousarray(scale if layer.axis == 0 else scale.T)
    stored = writer.stored_typed(layer.weight, weight.codes, weight.bits, element(weight.format))
    steps = writer.constant(scale) if weight.tensor_scale is None else _two_levels(writer, weight, scale)
    return writer.node("DequantizeLinear", [stored, steps], axis=inputs, block_size=size)


def _two_levels(writer: GraphWriter, weight: QuantizedWeight, scale: npt.NDArray[np.float32]) -> str:
    """Store NVFP4's scales as E4M3 numbers that are dequantized by the factor they have in common."""
    factor = np.array(weight.tensor_scale, dtype=np.float32)
    codes = nearest_code((scale / factor).astype(np.float32), "e4m3")
    plane = Plane("", onnx.TensorProto.FLOAT8E4M3FN, codes.shape, codes.tobytes())
    return writer.node("DequantizeLinear", [writer.store(writer.fresh(), plane), writer.constant(factor)])
