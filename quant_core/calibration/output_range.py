"""Choose the range of an activation grid by what its errors do to the network's outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.search_range import search_range

Floats = npt.NDArray[np.float64]

SHARES = np.linspace(0.25, 1, 25)
"""Where what is clipped is measured, as shares of the extremes."""
_ENDS = np.append(SHARES, [1.05, 1.1, 1.15, 1.2, 1.25, 1.3])
"""Where ends of ranges are tried: beyond the extremes too, for other samples reach further. Where they happen not to,
the last costs 2.3 dB of what rounding adds."""
_BANDWIDTH = 1.3
"""Bandwidth of the kernel, as a multiple of the spread of the samples' reaches over the fifth root of their number."""
_WIDEST = 0.5
"""Largest bandwidth, as a logarithm."""
_STEPS = np.linspace(-2, 2, 7)
_WEIGHTS = np.exp(-(_STEPS**2) / 2) / np.exp(-(_STEPS**2) / 2).sum()
"""A normal distribution in seven points."""


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

    def repeated(self, times: npt.NDArray[np.int64]) -> OutputErrors:
        """Count samples more than once.

        Args:
            times: How many samples each stands for, `[N]`.

        Returns:
            Errors of as many samples as they stand for; the same where samples are not told apart.
        """
        if self.rounded.size != times.size:
            return self
        parts = (self.rounded, self.below, self.above, self.lows, self.highs)
        return OutputErrors(*(part.repeat(times, axis=0) for part in parts))


def output_range(observed: ActivationRange, errors: OutputErrors, levels: int = 256) -> tuple[float, float]:
    """Find the range that changes the outputs least on samples that calibration has not seen.

    Errors of rounding with step d are independent of each other and come to `d^2 / 12 sum g^2`. Those of clipping all
    point one way and add up where the network sums or averages, so `c(t) = (g . e)^2` is measured for ends t. An unseen
    sample is taken for one of those seen, made larger or smaller by a factor f (a smoothed bootstrap: Silverman and
    Young, 1987), so that it may reach further than any of them:

        `C(t) = mean_i E f^2 c_i(t / f)`, `log f ~ N(0, h^2)`, `h = 1.3 s n^(-1/5)`,

    s the spread of the upper half of the logarithms of how far the n samples reach. Where many reach equally far, as
    behind a Clip, s is 0, and nobody is expected to reach further.

    Args:
        observed: The distribution of the tensor.
        errors: What its errors do.
        levels: Number of grid values.

    Returns:
        `low <= 0 <= high`, not both zero, at most 1.3 times as far out as the extremes.
    """
    minimum, maximum = min(observed.minimum, 0.0), max(observed.maximum, 0.0)
    if minimum == maximum:
        return search_range(observed, levels)
    rounded = float(errors.rounded.mean()) / 12 / (levels - 1) ** 2
    below = _unseen(errors.below, -errors.lows, -minimum)
    above = _unseen(errors.above, errors.highs, maximum)
    lows, highs = minimum * _ENDS, maximum * _ENDS
    lost = rounded * (highs[None, :] - lows[:, None]) ** 2 + above[None, :] + below[:, None]
    row, column = np.unravel_index(int(lost.argmin()), lost.shape)
    return float(lows[row]), float(highs[column])


def _unseen(clipped: Floats, reaches: Floats, extreme: float) -> Floats:
    """What clipping at each end is expected to do to a sample that was not seen, `[ENDS]`."""
    if extreme <= 0:
        return np.zeros(_ENDS.size)
    width = min(_WIDEST, _BANDWIDTH * _spread(reaches) * reaches.size**-0.2)
    factors = np.exp(width * _STEPS)
    ends = _ENDS / factors[:, None]
    # Between two shares what is clipped is close to linear; beyond the extreme there is nothing to clip.
    places = np.clip((ends - SHARES[0]) / (SHARES[1] - SHARES[0]), 0, SHARES.size - 1)
    first = np.minimum(places.astype(int), SHARES.size - 2)
    part = places - first
    changes = np.where(ends < 1, clipped[..., first] * (1 - part) + clipped[..., first + 1] * part, 0)
    costs: Floats = (_WEIGHTS * factors**2) @ (changes**2).mean((0, 1))
    return costs


def _spread(reaches: Floats) -> float:
    """Root of the mean square by which the logarithms of the upper half lie above the median."""
    logs = np.log(reaches[reaches > 0])
    if logs.size < 2:
        return 0.0
    over = np.maximum(logs - np.median(logs), 0)
    return float((2 * (over**2).sum() / (logs.size - 1)) ** 0.5)
