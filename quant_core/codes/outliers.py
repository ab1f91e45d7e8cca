"""Outliers: a few weights kept apart from dense codes, which reach further than these, on the same steps.

A weight of b bits has the codes `-2^(b-1) .. 2^(b-1) - 1`. An outlier adds an excess of 4 bits to the last of them, so
that it reaches eight steps further, and all others can have smaller steps. What is stored of it are the excess and its
distance from the outlier before in a byte: 12 bits. Distances above 255 take pairs in between, of excess 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EXCESS_BITS = 4
"""Bits of what an outlier adds to its dense code."""

PAIR_BITS = EXCESS_BITS + 8
"""Bits of a stored pair: excess and distance."""

LONGEST_GAP = 255
SPARSE_BITS = (2, 3, 4, 5, 6)
"""Bits of the weights that can have outliers; the codes of 8 bits fill an int8 by themselves."""


@dataclass(frozen=True)
class Outliers:
    """Which weights of a tensor may lie beyond its dense codes.

    Attributes:
        positions: int64, rising, in the flattened weight; `pairs_needed` of them is at most `pairs`.
        pairs: Stored pairs; what the positions do not need is filled up.
        left: Output error of the layer over that of the same bits without outliers; NaN where nobody measured it.
    """

    positions: npt.NDArray[np.int64]
    pairs: int
    left: float = float("nan")


def pairs_for(share: float, parameters: int) -> int:
    """Give the number of pairs that a share of the weights is.

    Args:
        share: Share of the weights, above 0.
        parameters: Number of weights.

    Returns:
        At least one.
    """
    return max(1, round(share * parameters))


def pairs_needed(positions: npt.NDArray[np.int64]) -> int:
    """Count the pairs that positions take, those in between included.

    Args:
        positions: Rising positions.

    Returns:
        `sum of max(1, ceil(gap / 255))`, the first gap counted from 0.
    """
    gaps = np.diff(positions, prepend=0)
    return int(np.maximum(1, -(-gaps // LONGEST_GAP)).sum())


def most_that_fit(ranked: npt.NDArray[np.int64], pairs: int) -> npt.NDArray[np.int64]:
    """Take as many positions as the pairs hold.

    Args:
        ranked: Distinct positions, the most wanted first.
        pairs: Number of pairs.

    Returns:
        The first of them, as many as fit, rising.
    """
    # A position more never takes fewer pairs, so that the number can be searched by halves.
    fits, fails = 0, min(len(ranked), pairs) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if pairs_needed(np.sort(ranked[:middle])) <= pairs:
            fits = middle
        else:
            fails = middle
    return np.sort(ranked[:fits])


def to_pairs(excess: npt.NDArray[np.int8], pairs: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]:
    """Write down where excesses lie.

    Args:
        excess: int8, flat: what each weight adds to its dense code, 0 for most.
        pairs: Number of pairs to write.

    Returns:
        Distances and excesses, `pairs` of each; the sum of the distances up to one is its position.

    Raises:
        ValueError: If there are more than the pairs hold.
    """
    positions = np.flatnonzero(excess)
    gaps = np.diff(positions, prepend=0)
    counts = np.maximum(1, -(-gaps // LONGEST_GAP))
    used = int(counts.sum())
    if used > pairs:
        raise ValueError(f"{len(positions)} outliers take {used} pairs, and there are {pairs}")
    distances = np.zeros(pairs, dtype=np.uint8)
    values = np.zeros(pairs, dtype=np.int8)
    distances[:used] = LONGEST_GAP
    last = counts.cumsum() - 1
    distances[last] = gaps - LONGEST_GAP * (counts - 1)
    values[last] = excess[positions]
    return distances, values
