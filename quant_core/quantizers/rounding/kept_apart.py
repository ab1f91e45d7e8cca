"""Which weights of a layer to keep apart as outliers, and how much smaller the steps of all others then get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from quant_core.codes import QuantizedWeight
from quant_core.codes.outliers import Outliers, most_that_fit, pairs_for
from quant_core.quantizers.grids.weight import drawn_in
from quant_core.spec.weight_grid import WeightGrid

_FACTORS = (0.95, 0.85, 0.72, 0.6)
"""Factors of the dense steps that are tried."""


def narrowed(
    weight: npt.NDArray[np.floating],
    dense: QuantizedWeight,
    share: float,
    grid: WeightGrid,
    price: npt.NDArray[np.floating],
) -> list[QuantizedWeight]:
    """Give smaller steps to try, each with the outliers that it asks for.

    Under smaller steps more weights lie beyond the last code. Kept apart are those for which clipping costs most,
    `s^2 (d_clipped^2 - d_kept^2) / U_kk^2`, d the distance in steps to the nearest code and U GPTQ's factor: what the
    greedy rounding of input k adds to the error when the inputs behind it make up for what they can.

    Args:
        weight: Float weight.
        dense: Its codes and steps without outliers, integers.
        share: Share of the weights to keep apart, in pairs.
        grid: The grid it lies on.
        price: `1 / U_kk^2` for each weight, broadcastable to its shape.

    Returns:
        Steps and outliers to round from, the largest steps first; codes do not count.
    """
    pairs = pairs_for(share, weight.size)
    starts = [drawn_in(dense, grid, factor) for factor in _FACTORS]
    return [
        replace(start, outliers=Outliers(_most_expensive(weight, start, price, pairs), pairs))
        for start in starts
    ]


def compared(
    kept: QuantizedWeight, dense: QuantizedWeight, error: Callable[[QuantizedWeight], float]
) -> QuantizedWeight:
    """Note how much of the layer's output error outliers leave.

    Args:
        kept: Codes with outliers.
        dense: Codes of the same bits without.
        error: Codes -> output error.

    Returns:
        The first with `Outliers.left`; 1 where there was no error to begin with.

    Raises:
        ValueError: If there are no outliers.
    """
    if kept.outliers is None:
        raise ValueError("these codes have no outliers")
    before = error(dense)
    left = error(kept) / before if before > 0 else 1.0
    return replace(kept, outliers=replace(kept.outliers, left=left))


def _most_expensive(
    weight: npt.NDArray[np.floating],
    start: QuantizedWeight,
    price: npt.NDArray[np.floating],
    pairs: int,
) -> npt.NDArray[np.int64]:
    """Positions of the weights that lose most by clipping, as many as fit in the pairs."""
    steps = np.broadcast_to(start.spread(start.scale), weight.shape).reshape(-1)
    wanted = weight.reshape(-1) / steps
    if start.zero_point is not None:
        wanted += np.broadcast_to(start.spread(start.zero_point), weight.shape).reshape(-1)
    half = 1 << (start.bits - 1)
    beyond = np.flatnonzero((wanted > half - 0.5) | (wanted < -half - 0.5))
    everywhere = replace(start, outliers=Outliers(beyond.astype(np.int64), pairs))
    low, high = everywhere.code_limits()
    wanted = wanted[beyond]
    clipped = wanted - np.clip(wanted, -half, half - 1)
    kept = wanted - np.clip(np.round(wanted), low.reshape(-1)[beyond], high.reshape(-1)[beyond])
    saved = (clipped**2 - kept**2) * steps[beyond] ** 2
    saved *= np.broadcast_to(price, weight.shape).reshape(-1)[beyond]
    ranked = beyond[np.argsort(-saved, kind="stable")[:pairs]]
    return most_that_fit(ranked.astype(np.int64), pairs)
