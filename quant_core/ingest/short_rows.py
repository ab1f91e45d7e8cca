"""Tables whose rows are too short to carry a step each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from quant_core.ingest.constant_tensors import stored_tensor
from quant_core.ingest.layer import Layer

_STEP_BITS = 32
_LONG = 128
"""Columns from which a step a row costs a quarter of a bit or less, which rows that differ a little make up for."""


def with_short_rows(layers: tuple[Layer, ...], model: ir.Model) -> tuple[Layer, ...]:
    """Mark the tables that are better off with one step for all rows.

    A step of its own costs each weight of a row of n `32 / n` bits, which would otherwise lower its squared error by
    `4^(32 / n)`. What the step lowers it by is `max_r m_r^2 / median_r m_r^2`, with m_r the largest magnitude of row r.
    So tables of 16 columns share a step unless their rows differ much, those of 64 seldom do, of one column always.

    Args:
        layers: Layers of the model.
        model: The model that they are in.

    Returns:
        The same layers, such tables with `short_rows`.
    """
    return tuple(replace(layer, short_rows=_has_short_rows(layer, model)) for layer in layers)


def _has_short_rows(layer: Layer, model: ir.Model) -> bool:
    columns = layer.parameters // layer.shape[0]
    if layer.axis != 0 or any(use.op != "Gather" for use in layer.uses) or columns >= _LONG:
        return False
    largest = (
        np.abs(stored_tensor(model, layer.weight).numpy().reshape(layer.shape[0], columns))
        .max(axis=1)
        .astype(np.float64)
    )
    usual = float(np.median(largest))
    return usual > 0 and float(np.log2(largest.max() / usual)) < _STEP_BITS / columns
