"""A layer as matrix products: its weight, inputs and outputs as matrices, whatever the operator."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from quant_core.executor import Program
from quant_core.ingest.layer import RECURRENT, Layer, Use
from quant_core.sensitivity.batches import Batch

_PATCH_BYTES = 1 << 26
"""Bytes of patches made at a time."""


def weight_matrix(layer: Layer, use: Use, weight: torch.Tensor) -> torch.Tensor | None:
    """Arrange a weight so that `output = matrix @ input` for each group of channels.

    Args:
        layer: The layer.
        use: The node that reads the weight.
        weight: The weight, or anything of its shape.

    Returns:
        [groups, outputs, inputs]: inputs are channels times kernel elements, or the rows of a table; groups are
        directions of a recurrent node; None where the
        layer does not tell which axis holds the outputs.
    """
    match use.op:
        case "Conv":
            return weight.reshape(layer.group, weight.shape[0] // layer.group, -1)
        case "ConvTranspose":
            parts = weight.reshape(layer.group, weight.shape[0] // layer.group, weight.shape[1], -1)
            return parts.transpose(1, 2).flatten(2)
        case "MatMul":
            matrices = weight.reshape(-1, *weight.shape[-2:])
            return matrices.mT if use.operand == 1 else matrices
        case "Gemm":
            return weight.movedim(layer.axis, 0)[None] if isinstance(layer.axis, int) else None
        case op if op in RECURRENT:
            return weight
        case "Gather" if layer.axis != 0 and isinstance(layer.axis, int):
            return None
        case _:
            return weight.reshape(1, weight.shape[0], -1).mT


def output_matrix(layer: Layer, use: Use, tensor: torch.Tensor) -> torch.Tensor:
    """Arrange what a node writes, or a gradient in it, to match `weight_matrix`.

    Args:
        layer: The layer.
        use: The node; not a recurrent one.
        tensor: The tensor.

    Returns:
        [groups, outputs, positions]: positions are samples times places in them.
    """
    if "Conv" in use.op:
        parts = tensor.reshape(tensor.shape[0], layer.group, tensor.shape[1] // layer.group, -1)
        return parts.permute(1, 2, 0, 3).flatten(2)
    if use.op == "Gather":
        return tensor.reshape(1, -1, math.prod(layer.shape[1:])).mT
    stack = layer.shape[:-2]
    if tensor.dim() < 2 + len(stack):
        # A vector times a matrix has no axis of rows, a matrix times a vector none of columns.
        tensor = tensor.unsqueeze(-2 if use.operand == 1 else -1)
    last = tensor.dim()
    channel = last - 1 if use.operand == 1 else last - 2
    grouped = [last - 2 - len(stack) + k for k, size in enumerate(stack) if size > 1]
    rest = [axis for axis in range(last) if axis != channel and axis not in grouped]
    ordered = tensor.permute(*grouped, channel, *rest)
    return ordered.reshape(math.prod(stack), tensor.shape[channel], -1)


def input_matrices(
    program: Program, layer: Layer, use: Use, batch: Batch, value: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Cut what a node reads into the columns that its weight matrix is multiplied by.

    The node itself is asked: a weight with a single 1 in every row gives as many entries of the columns as there are
    rows, with whatever strides, paddings and transpositions the node has. It runs as many times as the matrix is wider
    than high; together that costs no more than the product of the columns with themselves.

    Args:
        program: The network.
        layer: The layer.
        use: The node; neither a Gather nor a recurrent one.
        batch: The samples.
        value: What the node reads.

    Yields:
        [groups, inputs, positions], of some samples at a time where that saves memory.
    """
    weight = program.weights[layer.weight]
    places = weight_matrix(layer, use, torch.arange(weight.numel()).view(weight.shape))
    assert places is not None  # callers leave such layers out
    _, high, wide = places.shape
    chunks = [value]
    if "Conv" in use.op:
        each = math.prod(layer.shape[1:]) * value[0].numel() // layer.shape[1] * 4
        chunks = list(torch.split(value, max(1, _PATCH_BYTES // max(each, 1))))
    for chunk in chunks:

        def run(unit: torch.Tensor, chunk: torch.Tensor = chunk) -> torch.Tensor:
            found = program.evaluate(
                {**batch.feeds, use.input: chunk}, outputs=(use.output,), weights={layer.weight: unit}
            )
            return output_matrix(layer, use, found[use.output])

        base = run(torch.zeros_like(weight))
        columns = []
        for start in range(0, wide, high):
            count = min(high, wide - start)
            unit = torch.zeros_like(weight)
            picked = places[:, torch.arange(count), start + torch.arange(count)]
            unit.view(-1)[picked.flatten().to(unit.device)] = 1
            columns.append((run(unit) - base)[:, :count])
        yield torch.cat(columns, dim=1)
