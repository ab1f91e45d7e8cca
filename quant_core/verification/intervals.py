"""95 % confidence intervals of what was measured on a number of samples."""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtrit  # scipy.stats would take a second to import

_LEVEL = 0.95
_Z = float(ndtri(0.5 + _LEVEL / 2))

Interval = tuple[float, float]


def share_interval(hits: float, trials: int) -> Interval:
    r"""Bound a share by Wilson's score interval (1927).

    :math:`(p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}) / (1 + z^2/n)`; unlike the textbook's it is
    never empty, also where every trial is a hit.

    Args:
        hits: Successes.
        trials: Independent trials, at least 1.

    Returns:
        Lower and upper bound, from 0 to 1.
    """
    p, z2 = hits / trials, _Z**2
    middle = p + z2 / (2 * trials)
    half = _Z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    whole = 1 + z2 / trials
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def change_interval(lost: int, won: int, pairs: int) -> Interval:
    r"""Bound the change of a share between two judges of the same samples.

    :math:`d \pm z \sqrt{(b + c) - (b - c)^2 / n} / n` with half a pair added to b and c and two to n (Agresti and Min,
    Statistics in Medicine, 2005): samples on which both agree say nothing about the change, so the interval is much
    narrower than those of the two shares.

    Args:
        lost: Samples that only the first got right.
        won: Samples that only the second got right.
        pairs: Samples.

    Returns:
        Lower and upper bound of the second share less the first.
    """
    b, c, n = lost + 0.5, won + 0.5, pairs + 2
    half = _Z * math.sqrt(b + c - (c - b) ** 2 / n) / n
    return max(-1.0, (c - b) / n - half), min(1.0, (c - b) / n + half)


def mean_interval(total: float, squares: float, count: int) -> Interval | None:
    r"""Bound a mean by Student's t: :math:`\bar x \pm t_{n-1} s / \sqrt n`.

    Args:
        total: Sum of the values.
        squares: Sum of their squares.
        count: How many.

    Returns:
        Lower and upper bound; None for fewer than two values.
    """
    if count < 2:
        return None
    mean = total / count
    variance = max(0.0, (squares - count * mean**2) / (count - 1))
    half = float(stdtrit(count - 1, 0.5 + _LEVEL / 2)) * math.sqrt(variance / count)
    return mean - half, mean + half
