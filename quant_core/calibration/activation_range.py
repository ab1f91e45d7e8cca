"""What is remembered about one activation tensor: extremes and a histogram of fixed size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BINS = 2048
_PART = 1 << 16
_INTEGERS = 2**23
"""Integers up to twice this are floats."""
_COARSEST = 2.0**62
"""Bins of which more make one: it leaves 0 and -1 of any index, and numpy's integers hold it."""
_LEAST_WIDTH = 2.0**-100
_FEW = 64
"""Distinct values up to which they are remembered one by one."""
_LOOK = 4096
"""Values that are looked at first, for they tell of most tensors that theirs are many."""


@dataclass(frozen=True, eq=False)
class ActivationRange:
    """Distribution of all values of one tensor over the samples seen.

    Bin i counts values in `[(origin + i) * width, (origin + i + 1) * width)`. `width` is a power of two, so that a
    wider histogram is an exact merge of a finer one, and the result does not depend on batches or their order.

    Attributes:
        minimum: Smallest value.
        maximum: Largest value.
        zeros: How many values are exactly zero.
        counts: Values per bin, int64, `BINS`.
        origin: Index of the first bin.
        width: Width of a bin.
        values: All values, each once and in order, where they are 64 at most.
    """

    minimum: float
    maximum: float
    zeros: int
    counts: np.ndarray
    origin: int
    width: float
    values: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Number of values seen."""
        return int(self.counts.sum())

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, float64, `BINS + 1`."""
        return (self.origin + np.arange(BINS + 1)) * self.width


def measure(values: Tensor, extremes: tuple[float, float] | None = None) -> ActivationRange:
    """Summarise one tensor.

    Args:
        values: A float tensor of any shape, finite, not empty, on any device.
        extremes: Its smallest and largest value, where they are known.

    Returns:
        Its distribution.
    """
    flat = as_it_lies(values.detach())
    low, high = extremes or tuple(float(extreme) for extreme in torch.aminmax(flat))
    width = _bin_width(low, high)
    origin = math.floor(low / width)
    normal = flat.dtype == torch.float32 and _LEAST_WIDTH < width < 1 / _LEAST_WIDTH
    exact = normal and abs(origin) < _INTEGERS
    counts, zeros = np.zeros(BINS, np.int64), 0
    # What is in between stays in the cache. Widths are powers of two, so that the product is exact in either precision.
    for piece in torch.split(flat, _PART):
        part = piece if exact else piece.double()
        bins = (part * (1 / width)).floor_().sub_(origin).int()
        counts += torch.bincount(bins, minlength=BINS).cpu().numpy()
        zeros += int(np.count_nonzero(part.cpu().numpy() == 0))  # torch's comparison takes ten times as long
    return ActivationRange(
        minimum=low,
        maximum=high,
        zeros=zeros,
        counts=counts,
        origin=origin,
        width=width,
        values=_few(flat) if np.count_nonzero(counts) <= _FEW else None,
    )


def as_it_lies(values: Tensor) -> Tensor:
    """Lay all values of a tensor in one row in the order in which they lie in memory.

    Args:
        values: A tensor of any shape.

    Returns:
        One axis; no copy where channels come last, whose extremes torch finds up to 20 times as fast so.
    """
    order = sorted(range(values.dim()), key=values.stride, reverse=True)
    return values.permute(order).reshape(-1)


def merge(first: ActivationRange, second: ActivationRange) -> ActivationRange:
    """Combine what two batches showed.

    Args:
        first: One distribution.
        second: Another of the same tensor.

    Returns:
        The distribution of both together.
    """
    low, high = min(first.minimum, second.minimum), max(first.maximum, second.maximum)
    width = max(_bin_width(low, high), first.width, second.width)
    origin = math.floor(low / width)
    counts = np.zeros(BINS, np.int64)
    for part in (first, second):
        # Bin indices shrink by a power of two, so integer division places every old bin inside one new bin.
        coarser = round(min(width / part.width, _COARSEST))
        bins = (part.origin + np.arange(BINS)) // coarser - origin
        filled = part.counts > 0
        np.add.at(counts, bins[filled], part.counts[filled])
    return ActivationRange(
        minimum=low,
        maximum=high,
        zeros=first.zeros + second.zeros,
        counts=counts,
        origin=origin,
        width=width,
        values=_union(first.values, second.values),
    )


def _few(flat: Tensor) -> np.ndarray | None:
    for part in (flat[:_LOOK], flat):
        values = np.unique(part.cpu().numpy())
        if values.size > _FEW:
            return None
    return values


def _union(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    if first is None or second is None:
        return None
    values = np.union1d(first, second)
    return values if values.size <= _FEW else None


def _bin_width(low: float, high: float) -> float:
    """Give the smallest power of two for which `BINS` bins cover the range."""
    # Bins much finer than the values' own precision would overflow the bin index.
    finest = math.frexp(max(abs(low), abs(high)))[1] - 40
    exponent = max(finest, math.frexp((high - low) / BINS)[1] - 1 if high > low else finest)
    while math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) >= BINS:
        exponent += 1
    return 2.0**exponent
