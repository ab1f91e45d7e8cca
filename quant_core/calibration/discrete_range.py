"""A range whose grid hits every value of a tensor that takes few of them, as signs, masks and counts do."""

from __future__ import annotations

import numpy as np

from quant_core.calibration.activation_range import ActivationRange

_REPEATED = 16
"""How often values that are not zero occur in the mean where a tensor is taken to have no others."""
_MISSED = 1 / 16
"""How far from a code a value may lie, in steps: some 20 dB less than what rounding does to values of any size."""
_COARSER = 2.0
"""How much coarser than the finest grid over the range such a grid may be, for values that were not seen."""


def discrete_range(observed: ActivationRange, levels: int = 256) -> tuple[float, float] | None:
    """Find the finest grid that has a code for each value seen.

    Steps `r / k` are tried, r the largest magnitude and k an integer: values that are multiples of one number all lie
    on one of them. -1, 0 and 1 on a grid from -1 to 1 in 255 steps lie half a step beside their codes; in steps of
    1/127 the grid ends at 128/127, and they are codes.

    Args:
        observed: The distribution of the tensor.
        levels: Number of grid values.

    Returns:
        `low <= 0 <= high`, `low` a multiple of the step; None where values are many, are not seen often, or lie on
        no such grid.
    """
    values = observed.values
    if values is None:
        return None
    reach, span = float(np.abs(values).max()), float(max(values.max(), 0) - min(values.min(), 0))
    if reach == 0 or observed.count - observed.zeros < _REPEATED * np.count_nonzero(values):
        return None
    finest = span / (levels - 1)
    steps = reach / np.arange(levels - 1, 0, -1)
    steps = steps[(steps >= finest * (1 - 1e-9)) & (steps <= _COARSER * finest)]
    codes = values[None, :] / steps[:, None]
    hit = np.flatnonzero(np.abs(codes - np.rint(codes)).max(1) <= _MISSED)
    if hit.size == 0:
        return None
    step = float(steps[hit[0]])
    below = int(np.rint(-min(float(values.min()), 0.0) / step))
    return -below * step, (levels - 1 - below) * step
