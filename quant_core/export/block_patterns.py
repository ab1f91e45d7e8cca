"""Weights of matrix products read in blocks: one scale for a run of consecutive inputs of each output."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from quant_core.codes import QuantizedWeight
from quant_core.errors import InternalError
from quant_core.export.graph_writer import GraphWriter
from quant_core.ingest.layer import Layer

WriteWeight = Callable[[GraphWriter, Layer, QuantizedWeight], str]
"""Stores a weight; gives the name of what operators read."""

_SIZES = (128, 64, 32, 16)


def block_of(layer: Layer, block_size: int | None = None) -> int | None:
    """Find the block a matrix is cut into.

    Args:
        layer: A layer with a matrix.
        block_size: Size of the blocks that its scales belong to; None where there is one a channel, which every block
            of the channel then repeats.

    Returns:
        Inputs in a block; None if whole blocks do not fill the inputs.
    """
    if len(layer.shape) != 2 or layer.axis is None:
        return None
    inputs = layer.shape[1 - layer.axis]
    return next((size for size in ((block_size,) if block_size else _SIZES) if inputs % size == 0), None)


def write_blocks(writer: GraphWriter, layer: Layer, weight: QuantizedWeight) -> str:
    """Store a matrix for DequantizeLinear in blocks.

    Args:
        writer: Where to write.
        layer: The layer.
        weight: Its codes and scales, symmetric.

    Returns:
        Name of the dequantized matrix.

    Raises:
        InternalError: If whole blocks do not fill the matrix.
    """
    size = block_of(layer, weight.block_size)
    if size is None or weight.axis is None:
        raise InternalError(f"{layer.name} has no blocks of one size")
    inputs = 1 - weight.axis
    scale = weight.scale
    if weight.block_size is None:
        scale = np.repeat(scale[:, None], weight.codes.shape[inputs] // size, axis=1)
    scale = np.ascontiguousarray(scale if weight.axis == 0 else scale.T)
    stored = writer.stored_typed(layer.weight, weight.codes, weight.bits)
    return writer.node("DequantizeLinear", [stored, writer.constant(scale)], axis=inputs, block_size=size)
