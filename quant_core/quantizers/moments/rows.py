"""Weights as rows: one row of input coefficients for each output, group by group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from quant_core.ingest.layer import Layer


def rows_shape(layer: Layer) -> tuple[int, int, int]:
    """Give the shape of a layer's rows.

    Args:
        layer: A Conv, Gemm, right-hand MatMul or ungrouped ConvTranspose.

    Returns:
        Groups (of a stack its matrices), outputs per group, inputs.
    """
    if layer.op == "Conv":
        return layer.group, layer.shape[0] // layer.group, layer.parameters // layer.shape[0]
    if layer.op == "MatMul":
        return layer.matrices, layer.shape[-1], layer.shape[-2]
    first, rest = layer.shape[0], layer.parameters // layer.shape[0]
    return (1, rest, first) if _inputs_first(layer) else (1, first, rest)


def to_rows(layer: Layer, weight: npt.NDArray[np.generic]) -> torch.Tensor:
    """Lay a weight out as rows that the layer's inputs are multiplied with.

    Args:
        layer: A Conv, Gemm, MatMul or ungrouped ConvTranspose.
        weight: An array in the weight's shape.

    Returns:
        `[groups, outputs per group, inputs]`, a copy.
    """
    rows = rows_view(layer, torch.from_numpy(np.array(weight)))
    # torch turns a large matrix round in a third of the time that it takes for a stack of one.
    return rows[0].contiguous()[None] if len(rows) == 1 else rows.contiguous()


def rows_view(layer: Layer, weight: torch.Tensor) -> torch.Tensor:
    """Lay a tensor out as `to_rows` does; gradients flow through.

    Args:
        layer: A Conv, Gemm, MatMul or ungrouped ConvTranspose.
        weight: A tensor in the weight's shape.

    Returns:
        `[groups, outputs per group, inputs]`.
    """
    groups, outputs, inputs = rows_shape(layer)
    if layer.op != "Conv" and _inputs_first(layer):
        weight = weight.reshape(groups, inputs, outputs).transpose(1, 2)
    return weight.reshape(groups, outputs, inputs)


def from_rows(layer: Layer, rows: torch.Tensor) -> npt.NDArray[np.generic]:
    """Put rows back into the weight's shape; the inverse of `to_rows`.

    Args:
        layer: The layer.
        rows: `[groups, outputs per group, inputs]`.

    Returns:
        A contiguous array.
    """
    array = rows.numpy()
    if layer.op != "Conv" and _inputs_first(layer):
        array = array.swapaxes(1, 2)
    return np.ascontiguousarray(array.reshape(layer.shape))


def scale_to_rows(layer: Layer, scale: npt.NDArray[np.float32]) -> torch.Tensor:
    """Give every row its step.

    Args:
        layer: The layer.
        scale: One step a channel, or one for the whole tensor.

    Returns:
        `[groups, outputs per group, 1]`.
    """
    steps = torch.from_numpy(np.array(scale, dtype=np.float32))
    if layer.op == "Conv":
        return steps.expand(layer.shape[0]).reshape(layer.group, -1, 1)
    groups, outputs, _ = rows_shape(layer)
    if layer.op == "ConvTranspose":
        steps = steps.reshape(-1, 1).expand(-1, outputs // max(1, steps.numel())).reshape(-1)
    return steps.expand(groups * outputs).reshape(groups, -1, 1)


def _inputs_first(layer: Layer) -> bool:
    """Whether the weight's first axis runs over the layer's inputs."""
    return layer.op in {"ConvTranspose", "MatMul"} or layer.axis != 0
