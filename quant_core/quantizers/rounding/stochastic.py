"""Stochastic rounding: up or down by chance, so that the mean stays what it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from quant_core.codes import QuantizedWeight
from quant_core.quantizers.grids.elements import elements
from quant_core.quantizers.grids.scaled_rows import from_scaled_rows, to_scaled_rows
from quant_core.spec.weight_grid import WeightGrid


def round_stochastically(
    weight: npt.NDArray[np.floating], start: QuantizedWeight, generator: torch.Generator
) -> QuantizedWeight:
    """Round each weight to one of the two values next to it.

    With l <= x < h the neighbours of x = w / s on the grid, `P(h) = (x - l) / (h - l)`, so that the mean is x (Croci et
    al., Stochastic rounding: implementation, error analysis and applications, 2022, definition 1). What lies beyond the
    ends of the grid is clipped to them first, and its mean is that end.

    Args:
        weight: Float weights.
        start: Scales, zero points and format.
        generator: Source of chance, on the CPU.

    Returns:
        The same with codes drawn anew.
    """
    rows = to_scaled_rows(weight, start.axis, start.block_size)
    kinds = elements(start.bits, WeightGrid(format=start.format))
    x = rows / torch.from_numpy(start.scale.reshape(-1, 1))
    if start.zero_point is not None:
        x += torch.from_numpy(start.zero_point.astype(np.float32).reshape(-1, 1))
    x = x.clamp(kinds.low, kinds.high)
    below, above = kinds.neighbours(x)
    chance = torch.rand(x.shape, generator=generator)
    values = torch.where(chance < (x - below) / (above - below), above, below)
    codes = kinds.encode(values.clamp(kinds.low, kinds.high))
    return replace(start, codes=from_scaled_rows(codes, weight.shape, start.axis, start.block_size))
