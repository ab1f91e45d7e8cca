"""Which steps a file can store: float32, float16, bfloat16, E4M3 times a factor, powers of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quant_core.codes.number_formats import half_from, positive_values
from quant_core.quantizers.grids.elements import Minifloats
from quant_core.spec.weight_grid import WeightGrid

_TINY = float(np.finfo(np.float32).tiny)
_LEAST_EXPONENT, _LARGEST_EXPONENT = -126, 127  # of E8M0, but for 2^-127, which is no normal float32


class StoredScales(Protocol):
    """The steps that can be stored."""

    @property
    def factor(self) -> float | None:
        """What all steps have in common and is stored beside them."""
        ...

    @property
    def beyond(self) -> tuple[float, ...]:
        """Shares above 1 of the step that clips nothing which may lose less than it."""
        ...

    def reach(self, high: float) -> float:
        """Say which value of the grid the largest weight is laid on at first.

        Args:
            high: Largest value of the grid.

        Returns:
            That value.
        """
        ...

    def stored(self, scale: Tensor) -> Tensor:
        """Take each step to one that can be stored.

        Args:
            scale: Positive steps.

        Returns:
            Positive float32 steps.
        """
        ...


class Float32Scales:
    """Any step: those of channels and tensors of floating formats, of which there are few."""

    factor = None
    beyond = ()

    def reach(self, high: float) -> float:  # noqa: D102 # as the protocol says
        return high

    def stored(self, scale: Tensor) -> Tensor:  # noqa: D102
        return scale


class HalfScales(Float32Scales):
    """Steps of channels and tensors in two bytes, taken upwards so that a range that fitted still fits.

    float16 knows steps to 1 part in 1,000 down to 6e-5 and none below 6e-8: a layer whose steps are so small keeps
    them in float32, but a channel that is small beside others takes the next one up. Codes are found under the step.
    """

    def stored(self, scale: Tensor) -> Tensor:  # noqa: D102
        steps = scale.cpu().numpy()
        halves = half_from(steps)
        zero = np.abs(steps) <= _TINY  # rows of zeros
        return torch.from_numpy(np.where(zero, steps, halves) if zero.any() else halves)


class BFloat16Scales(Float32Scales):
    """Steps of blocks in two bytes, taken upwards so that a range that fitted still fits."""

    def stored(self, scale: Tensor) -> Tensor:  # noqa: D102
        bits = scale.contiguous().view(torch.int32)
        return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


class PowerOfTwoScales:
    """Steps of MXFP4 blocks, E8M0.

    The first one tried is `2^(floor(log2 max |w|) - 2)`, where 2 is the largest exponent of E2M1: the rule of OCP
    Microscaling Formats 1.0, section 6.3. What then lies above 6 steps is clipped; twice the step clips nothing.
    """

    factor = None
    beyond = (2.0,)

    def reach(self, high: float) -> float:  # noqa: D102
        return float(2 ** math.floor(math.log2(high)))

    def stored(self, scale: Tensor) -> Tensor:  # noqa: D102
        exponent = torch.frexp(scale).exponent - 1
        return torch.ldexp(torch.ones_like(scale), exponent.clamp(_LEAST_EXPONENT, _LARGEST_EXPONENT))


@dataclass(frozen=True)
class E4M3Scales:
    """Steps of NVFP4 blocks: E4M3 numbers times one float32 factor for the tensor.

    Attributes:
        factor: The factor.
    """

    factor: float
    # The grid is coarser at its end: a block whose largest weight lies on 4 instead of 6 may lose less.
    beyond = (1.125, 1.25, 1.5)

    def reach(self, high: float) -> float:  # noqa: D102
        return high

    def stored(self, scale: Tensor) -> Tensor:  # noqa: D102
        smallest = float(positive_values("e4m3")[1])
        code = Minifloats("e4m3").nearest(scale / self.factor).clamp_min(smallest)
        return code * self.factor


def tensor_factor(rows: Tensor, grid: WeightGrid) -> float | None:
    """Give what all steps of a tensor have in common and is stored beside them.

    Args:
        rows: The weights, or at least those of largest size.
        grid: The grid.

    Returns:
        For NVFP4 `max |w| / (6 * 448)`, so that the largest block has the largest scale (NVIDIA, Pretraining large
        language models with NVFP4, arXiv:2509.25149, appendix C); None elsewhere.
    """
    if grid.format != "nvfp4":
        return None
    largest = rows.abs().amax() if rows.numel() else torch.tensor(0.0)
    factor = float(largest / float(positive_values("e2m1")[-1] * positive_values("e4m3")[-1]))
    return factor if factor >= torch.finfo(torch.float32).tiny else 1.0


def stored_scales(grid: WeightGrid, factor: float | None = None) -> StoredScales:
    """Say which steps a grid's scales may take.

    Args:
        grid: The grid.
        factor: Its `tensor_factor`.

    Returns:
        Its steps.
    """
    if factor is not None:
        return E4M3Scales(factor)
    if grid.format == "mxfp4":
        return PowerOfTwoScales()
    if grid.block is not None:
        return BFloat16Scales()
    return HalfScales() if grid.format == "int" else Float32Scales()
