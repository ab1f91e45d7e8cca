"""One-sided confidence bounds of what was measured on samples, made for sparse and for skewed values."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, stdtrit  # scipy.stats would take a second to import

Floats = npt.NDArray[np.float64]


def share_bound(values: Floats, alpha: float) -> float:
    r"""Bound the mean of values from 0 to 1, most of them 0, from above.

    The gamma interval of Fay and Feuer (Statistics in Medicine, 1997) for a weighted sum of rare events, with
    :math:`y = \bar e`, :math:`v = \sum e_i^2 / n^2` and :math:`w = 1/n`, the most that one more event could weigh:
    :math:`\frac{v + w^2}{2 (y + w)} \chi^2_{1 - \alpha}` at :math:`2 (y + w)^2 / (v + w^2)` degrees of freedom. Where
    every value is 0 it is :math:`\ln(1/\alpha) / n`, not 0.

    Args:
        values: One value a sample.
        alpha: How often the mean of the population may lie above.

    Returns:
        The bound, at most 1.
    """
    return _share_bound(values, alpha, len(values))


def mean_bound(values: Floats, alpha: float) -> float:
    r"""Bound the mean of the population from above, for values of any size and skew.

    Student's t after Hall's transformation (Journal of the Royal Statistical Society B, 1992), which takes the
    skewness out of it: :math:`\bar x - s g^{-1}(-t_{1-\alpha}) / \sqrt n` with
    :math:`g^{-1}(x) = \frac{3}{h} ((1 + h (x - h/6))^{1/3} - 1)` and :math:`h` the skewness over :math:`\sqrt n`.

    Args:
        values: One value a sample.
        alpha: How often the mean of the population may lie above.

    Returns:
        The bound; infinite for fewer than two values.
    """
    return _mean_bound(values, alpha, len(values))


def fewest_samples(limit: float, alpha: float) -> float:
    """Give the fewest samples with which a mean of values from 0 to 1 can be shown to keep a limit.

    Args:
        limit: The most the mean may be.
        alpha: How often it may lie above all the same.

    Returns:
        How many it takes where every value is 0; infinite where the limit is 0.
    """
    return math.ceil(math.log(1 / alpha) / limit) if limit > 0 else math.inf


def samples_for(values: Floats, limit: float, alpha: float, *, sparse: bool) -> int | None:
    """Estimate how many samples like these would put the bound on their mean within a limit.

    Args:
        values: One value a sample.
        limit: The most the bound may be.
        alpha: As in `share_bound` and `mean_bound`.
        sparse: Whether it is `share_bound`, else `mean_bound`.

    Returns:
        Their number, or None where the mean itself is beyond the limit or no number would do.
    """
    bound = _share_bound if sparse else _mean_bound
    low = high = max(2, len(values))
    while bound(values, alpha, high) > limit:
        low, high = high, 2 * high
        if high > 2**40:
            return None
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if bound(values, alpha, middle) <= limit else (middle, high)
    return high


def _share_bound(values: Floats, alpha: float, count: int) -> float:
    # What the values say of a population, as if `count` of them had been seen.
    mean, square, weight = float(values.mean()), float(np.square(values).mean()) / count, 1 / count
    spread, top = square + weight**2, mean + weight
    return min(1.0, spread / (2 * top) * float(chdtri(2 * top**2 / spread, alpha)))


def _mean_bound(values: Floats, alpha: float, count: int) -> float:
    if count < 2 or len(values) < 2:
        return math.inf
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    if not spread > 1e-12 * abs(mean):
        return mean
    skew = float(np.mean(((values - mean) / values.std()) ** 3)) / math.sqrt(count)
    quantile = float(stdtrit(count - 1, alpha))
    if abs(skew) > 1e-6:
        quantile = 3 / skew * (math.cbrt(1 + skew * (quantile - skew / 6)) - 1)
    return mean - spread / math.sqrt(count) * quantile
