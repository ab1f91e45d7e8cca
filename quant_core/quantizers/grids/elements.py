"""What lies on a grid of step 1: integers, or the values of a minifloat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.codes.number_formats import Minifloat, element, mantissa_bits, nearest_code, positive_values
from quant_core.errors import SpecError
from quant_core.spec.weight_grid import WeightGrid

_MANTISSA_OF_FLOAT32 = 23
_EXPONENT = 0xFF << _MANTISSA_OF_FLOAT32


class Elements(Protocol):
    """The values weights are rounded to, in units of their step."""

    @property
    def low(self) -> float:
        """Smallest value."""
        ...

    @property
    def high(self) -> float:
        """Largest value."""
        ...

    def nearest(self, x: Tensor) -> Tensor:
        """Round to the nearest value, ties to the even code, and clip.

        Args:
            x: Weights in units of their step; may be overwritten.

        Returns:
            Values on the grid.
        """
        ...

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give the values next to x on either side.

        Args:
            x: Weights in units of their step, within the range of the grid.

        Returns:
            The largest value not above x and the smallest one above it.
        """
        ...

    def encode(self, values: Tensor) -> npt.NDArray[np.int8]:
        """Write values on the grid as codes.

        Args:
            values: Values on the grid.

        Returns:
            int8 codes, or bit patterns.
        """
        ...


@dataclass(frozen=True)
class Integers:
    """All integers from `low` to `high`."""

    low: int
    high: int

    def nearest(self, x: Tensor) -> Tensor:  # noqa: D102 # as the protocol says
        return x.round_().clamp_(self.low, self.high)

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        below = torch.floor(x)
        return below, below + 1

    def encode(self, values: Tensor) -> npt.NDArray[np.int8]:  # noqa: D102
        codes: npt.NDArray[np.int8] = values.to(torch.int8).numpy()
        return codes


@dataclass(frozen=True)
class Minifloats:
    """The finite values of a minifloat."""

    element: Minifloat

    @property
    def high(self) -> float:  # noqa: D102
        return float(positive_values(self.element)[-1])

    @property
    def low(self) -> float:  # noqa: D102
        return -self.high

    def nearest(self, x: Tensor) -> Tensor:  # noqa: D102
        mantissa = mantissa_bits(self.element)
        # Bits of the power of two below |x|, but for subnormals; the last place of x's mantissa is worth 2^-M of it.
        smallest = torch.tensor(positive_values(self.element)[1 << mantissa]).view(torch.int32)
        power = (x.contiguous().view(torch.int32) & _EXPONENT).clamp_min_(smallest)
        place = power.sub_(mantissa << _MANTISSA_OF_FLOAT32).view(torch.float32)
        return torch.round(x / place).mul_(place).clamp_(self.low, self.high)

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        positive = torch.from_numpy(positive_values(self.element).copy())
        grid = torch.cat([-positive[1:].flip(0), positive])
        above = torch.bucketize(x.contiguous(), grid, right=True).clamp_(1, len(grid) - 1)
        return grid[above - 1], grid[above]

    def encode(self, values: Tensor) -> npt.NDArray[np.int8]:  # noqa: D102
        return nearest_code(values.numpy() + np.float32(0), self.element).view(np.int8)  # no negative zero


def elements(bits: int, grid: WeightGrid) -> Elements:
    """Give what a grid of a width holds.

    Args:
        bits: Bits of a code.
        grid: The grid.

    Returns:
        Its elements; signed integers where the format is `int`.
    """
    minifloat = element(grid.format)
    return Integers(*code_range(bits)) if minifloat is None else Minifloats(minifloat)


def code_range(bits: int) -> tuple[int, int]:
    """Give the smallest and largest integer code of a bit-width.

    Args:
        bits: Bits b, 2 to 8.

    Returns:
        `(-2^(b-1), 2^(b-1) - 1)`.

    Raises:
        SpecError: If the width cannot be stored in an int8 code.
    """
    if not 2 <= bits <= 8:
        raise SpecError(f"{bits}-bit integer weights do not exist here.", remedy="Choose 2 to 8 bits.")
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
