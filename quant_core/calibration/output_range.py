"""Choose the range of an activation grid by what its errors do to the network's outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.search_range import search_range

Floats = npt.NDArray[np.float64]

SHARES = np.linspace(0.25, 1, 25)
"""Where ends of ranges are tried, as shares of the extremes."""
_CLIPPED = 4.0
"""How much what is clipped counts, for other samples reach further than those that calibration saw."""
_SAME = 1 - 1e-4
"""Share of an extreme from which on a sample holds it: sums in batches of other sizes differ in their last bits."""
_LEAST_GAIN = 1.1
"""How many times less the outputs must change than with the range of least squared error."""


@dataclass(frozen=True, eq=False)
class OutputErrors:
    """What errors of one tensor do to the outputs, sample by sample, to first order.

    With `g = J^T s`, J the slopes of the outputs and s random signs, errors e of the tensor's elements change the
    outputs by `E (g . e)^2` in squares.

    Attributes:
        rounded: Sum of `g^2` over the values that are not zero, in the mean over draws, `[N]`.
        below: `g . e` for each draw of signs where values below each share of the smallest value of all are clipped,
            `[N, draws, SHARES]`.
        above: The same of the largest.
        lows: Smallest value of each sample, `[N]`.
        highs: Largest value of each sample, `[N]`.
    """

    rounded: Floats
    below: Floats
    above: Floats
    lows: Floats
    highs: Floats


def output_range(observed: ActivationRange, errors: OutputErrors, levels: int = 256) -> tuple[float, float]:
    """Find the range that changes the outputs least.

    Errors of rounding with step d are independent of each other and come to `d^2 / 12 sum g^2`. Those of clipping all
    point one way and add up where the network sums or averages, so `(g . e)^2` is measured. It counts four times, and a
    sample that alone holds an extreme is clipped where the same share of the others' extreme lies.

    Args:
        observed: The distribution of the tensor.
        errors: What its errors do.
        levels: Number of grid values.

    Returns:
        `low <= 0 <= high`, not both zero; that of `search_range` where no other promises a tenth less.
    """
    plain = search_range(observed, levels)
    minimum, maximum = min(observed.minimum, 0.0), max(observed.maximum, 0.0)
    if minimum == maximum:
        return plain
    rounded = float(errors.rounded.mean()) / 12 / (levels - 1) ** 2
    below = _CLIPPED * (_unseen(errors.below, -errors.lows, -minimum) ** 2).mean((0, 1))
    above = _CLIPPED * (_unseen(errors.above, errors.highs, maximum) ** 2).mean((0, 1))
    lows, highs = minimum * SHARES, maximum * SHARES
    lost = rounded * (highs[None, :] - lows[:, None]) ** 2 + above[None, :] + below[:, None]
    row, column = np.unravel_index(int(lost.argmin()), lost.shape)
    given = rounded * (plain[1] - plain[0]) ** 2 + sum(
        float(np.interp(end / extreme, SHARES, costs)) if extreme else 0.0
        for end, extreme, costs in ((plain[0], minimum, below), (plain[1], maximum, above))
    )
    return (float(lows[row]), float(highs[column])) if given >= _LEAST_GAIN * lost[row, column] else plain


def _unseen(clipped: Floats, reaches: Floats, extreme: float) -> Floats:
    """What is clipped, where the sample that reaches the extreme did not take part in finding it."""
    top = int(reaches.argmax())
    if extreme <= 0 or reaches.size < 2 or reaches[top] < _SAME * extreme:
        return clipped
    others = max(0.0, float(np.delete(reaches, top).max()))
    judged = clipped.copy()
    judged[top] = [np.interp(SHARES * others / extreme, SHARES, draw) for draw in clipped[top]]
    return judged
