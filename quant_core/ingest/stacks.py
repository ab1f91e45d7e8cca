"""Stacks of matrices: layers with a matrix for each head, expert or camera, and what is multiplied with them."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from quant_core.ingest.layer import Layer
from quant_core.ingest.ranks import find_ranks

_MATRIX = 2  # axes


def with_rows(layers: tuple[Layer, ...], model: ir.Model) -> tuple[Layer, ...]:
    """Mark the stacks that are multiplied with rows.

    What comes of a vector and a stack has no axis of rows, beside which the steps of each matrix could be laid out.

    Args:
        layers: Layers of the model.
        model: A normalised model; shapes are inferred on a copy, and only where there are stacks.

    Returns:
        The same layers, those that do so or have one matrix with `by_rows`; others may multiply vectors, or tensors
        of unknown rank.
    """
    if not any(_is_stack(layer) for layer in layers):
        return layers
    ranks = find_ranks(model)
    return tuple(
        replace(layer, by_rows=all(ranks.get(name, 0) >= _MATRIX for name in layer.inputs))
        if _is_stack(layer)
        else layer
        for layer in layers
    )


def _is_stack(layer: Layer) -> bool:
    return layer.op == "MatMul" and len(layer.shape) > _MATRIX
