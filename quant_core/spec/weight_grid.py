"""The grid that weights are rounded to: number format, granularity of the scales, symmetry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WeightFormat = Literal["int", "fp8_e4m3", "fp8_e5m2", "nvfp4", "mxfp4"]
Granularity = Literal["tensor", "channel", "block"]
WeightRange = Literal["mse", "minmax", "percentile", "hessian"]

FORMAT_BITS: dict[WeightFormat, int] = {"fp8_e4m3": 8, "fp8_e5m2": 8, "nvfp4": 4, "mxfp4": 4}
"""Bits of a code of each format that has but one width."""

FORMAT_BLOCK: dict[WeightFormat, int] = {"nvfp4": 16, "mxfp4": 32}
"""Block size of each format that prescribes one."""

INT8_BITS = 8
"""Bits of the weights that integer kernels take."""

_BLOCK_SCALE_BITS: dict[WeightFormat, int] = {"nvfp4": 8, "mxfp4": 8}
_OTHER_SCALE_BITS = 16


@dataclass(frozen=True)
class WeightGrid:
    """How the weights of one width are laid on a grid.

    Attributes:
        granularity: One scale for the whole tensor, for each channel, or for each block of consecutive inputs.
        block_size: Inputs in a block; counts for `block` alone.
        symmetric: Whether the value 0 has the code 0; else each scale has a zero point.
        format: Integer codes or a floating format.
        range_search: How steps are chosen: by least squared error of the weight; so that nothing, or one weight in a
            thousand on either side, is clipped; or by least error of the layer's output after its codes are found.
        turned: Whether steps of symmetric integers may be negative. Integers of b bits reach one code further below 0
            than above; a negative step lays that code on the side of the larger weights.
    """

    granularity: Granularity = "channel"
    block_size: int = 32
    symmetric: bool = True
    format: WeightFormat = "int"
    range_search: WeightRange = "mse"
    turned: bool = False

    @property
    def block(self) -> int | None:
        """Inputs in a block; None where scales are not those of blocks."""
        return self.block_size if self.granularity == "block" else None

    def suits_int8_kernels(self, bits: int) -> bool:
        """Tell whether integer kernels take such weights.

        They know one scale a channel and no zero point; codes less their zero point are 8-bit codes where they have
        fewer bits themselves.

        Args:
            bits: Bits of a code.

        Returns:
            True if they do.
        """
        return self.format == "int" and self.block is None and (self.symmetric or bits < INT8_BITS)

    def turns(self, bits: int) -> bool:
        """Tell whether steps of a width may be negative.

        Args:
            bits: Bits of a code.

        Returns:
            True for symmetric integers of fewer than 8 bits, where one code is a share of the range that counts.
        """
        return self.turned and self.symmetric and self.format == "int" and bits < INT8_BITS

    def effective_bits(self, bits: int) -> float:
        """Count a weight's share of its block's scale and zero point with its code.

        Args:
            bits: Bits of a code.

        Returns:
            4.5 for NVFP4, 4.25 for MXFP4, `bits` where scales are those of channels or of the tensor.
        """
        if self.block is None:
            return float(bits)
        zero_point = 0 if self.symmetric else bits
        return bits + (_BLOCK_SCALE_BITS.get(self.format, _OTHER_SCALE_BITS) + zero_point) / self.block
