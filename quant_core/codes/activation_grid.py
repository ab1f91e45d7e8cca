"""The grid of a tensor between layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quant_core.codes.number_formats import Minifloat, positive_values


@dataclass(frozen=True)
class ActivationGrid:
    """`x ~ scale * (q - zero_point)` with q in `0..2^b - 1`; zero is always on the grid.

    Attributes:
        scale: Step, positive, exactly representable in float32.
        zero_point: Code of the value 0, in `0..2^b - 1`.
        bits: Bits b of each code.
        element: Minifloat that q is in place of an integer; the zero point is then 0.
    """

    scale: float
    zero_point: int
    bits: int = 8
    element: Minifloat | None = None

    @property
    def highest(self) -> int:
        """Largest code."""
        return (1 << self.bits) - 1

    @property
    def low(self) -> float:
        """Smallest value on the grid."""
        return -self.high if self.element else -self.zero_point * self.scale

    @property
    def high(self) -> float:
        """Largest value on the grid."""
        if self.element:
            return float(positive_values(self.element)[-1]) * self.scale
        return (self.highest - self.zero_point) * self.scale

    @property
    def largest_step(self) -> float:
        """Largest distance between neighbours on the grid."""
        if self.element:
            return float(np.diff(positive_values(self.element)[-2:])[0]) * self.scale
        return self.scale
