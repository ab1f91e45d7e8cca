"""A quantized weight: integer codes, scales, zero points, and what is stored of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from quant_core.codes.channels import ChannelAxis, spread
from quant_core.codes.number_formats import code_values, element, half_nearest
from quant_core.codes.outliers import EXCESS_BITS, Outliers
from quant_core.codes.trellis import trellis_codes
from quant_core.spec.weight_grid import INT8_BITS, WeightFormat
from quant_core.spec.width import NARROW


@dataclass(frozen=True)
class CorrectedBias:
    """A bias that makes up for the mean error of rounded weights.

    Attributes:
        name: Initializer that it takes the place of.
        values: float32, in that initializer's shape.
    """

    name: str
    values: npt.NDArray[np.float32]

    @classmethod
    def stored(cls, name: str, values: npt.NDArray[np.floating]) -> Self:
        """Give a bias as files hold it: in float16 where that loses next to nothing.

        Args:
            name: Initializer that it takes the place of.
            values: Its values.

        Returns:
            The bias.
        """
        return cls(name, half_nearest(values.astype(np.float32)))


@dataclass(frozen=True, eq=False)
class NarrowChannels:
    """Channels of a weight whose codes take fewer bits than those of the others.

    Attributes:
        bits: Bits of their codes.
        channels: Whether each channel is one of them, bool `[C]`; some are, and some are not.
    """

    bits: int
    channels: npt.NDArray[np.bool_]

    @property
    def share(self) -> float:
        """Share of the channels."""
        return float(self.channels.mean())


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes and scales of one weight tensor.

    A channel is what lies at one index of `axis`, or of several axes, its other axes flattened in order; without an
    axis the whole tensor counts as one. A block is a run of `block_size` consecutive weights of a channel; the last one
    may be shorter.

    Attributes:
        codes: int8, the weight's shape: integers in `[-2^(b-1), 2^(b-1) - 1]`, or a floating format's bit patterns;
            with a trellis the values in `[-2^b, 2^b - 1]` that its codes stand for.
        scale: float32 steps: one per channel (shape `[C]`), per block (`[C, blocks]`), or `[]` for the whole. Those of
            symmetric integers may be negative: the largest code is then what lies furthest below 0.
        axis: Channel axis of the scales, several in rising order for a stack of matrices, or None for one channel.
        bits: Bits b of each code.
        bias: What the layer's bias becomes with these codes, if it changes.
        zero_point: int8, the integer code of the value 0 for each scale; None where it is 0 everywhere.
        block_size: Weights in a block; None where a scale is that of a channel or of the tensor.
        format: Number format of the codes.
        tensor_scale: Factor all scales of NVFP4 have in common; `scale / tensor_scale` is an E4M3 number.
        outliers: Weights whose codes may lie up to eight steps beyond those of b bits, kept apart; None if there are
            none.
        narrow: Channels whose codes take fewer bits than `bits`; None where all take as many.
        trellis: Whether each code chooses from half of the values of b + 1 bits, on paths along `axis`.
    """

    codes: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    axis: ChannelAxis
    bits: int
    bias: CorrectedBias | None = None
    zero_point: npt.NDArray[np.int8] | None = None
    block_size: int | None = None
    format: WeightFormat = "int"
    tensor_scale: float | None = None
    outliers: Outliers | None = None
    narrow: NarrowChannels | None = None
    trellis: bool = False

    @property
    def widths(self) -> frozenset[int]:
        """The bits that its codes are stored in, and `NARROW` where these are several."""
        return frozenset({self.bits} if self.narrow is None else {self.bits, self.narrow.bits, NARROW})

    @property
    def suits_int8_kernels(self) -> bool:
        """Whether integer kernels take these weights.

        They know one scale a channel and no zero point; codes less their zero point are 8-bit codes where they have
        fewer bits themselves.
        """
        shifts = self.zero_point is not None and self.bits == INT8_BITS
        return self.format == "int" and self.block_size is None and not shifts

    def dense_codes(self) -> npt.NDArray[np.int8]:
        """Give the codes as they are stored, without what outliers add to them or a trellis makes of them.

        Returns:
            int8, the weight's shape, in the range of b bits.
        """
        if self.trellis and isinstance(self.axis, int):
            return trellis_codes(self.codes, self.axis)
        if self.outliers is None:
            return self.codes
        half = 1 << (self.bits - 1)
        return np.clip(self.codes, -half, half - 1)

    def code_limits(self) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """Give the range of every integer code.

        Returns:
            The smallest and the largest code, int8: shaped as the weight where there are outliers, one for each channel
            where some are narrow, else `[]`. They broadcast to the weight's shape.
        """
        more = int(self.trellis)
        half = 1 << (self.bits - 1 + more)
        if self.narrow is not None:
            halves = np.where(self.narrow.channels, 1 << (self.narrow.bits - 1 + more), half)
            return self.spread((-halves).astype(np.int8)), self.spread((halves - 1).astype(np.int8))
        low, high = np.array(-half, dtype=np.int8), np.array(half - 1, dtype=np.int8)
        if self.outliers is None:
            return low, high
        reach = 1 << (EXCESS_BITS - 1)
        low, high = (np.full(self.codes.size, limit, dtype=np.int8) for limit in (low, high))
        low[self.outliers.positions] -= np.int8(reach)
        high[self.outliers.positions] += np.int8(reach - 1)
        return low.reshape(self.codes.shape), high.reshape(self.codes.shape)

    def in_full(self) -> QuantizedWeight:
        """Give the same weight without a trellis: its values are codes of one bit more, free to change.

        Returns:
            The weight; itself where it has none.
        """
        if not self.trellis:
            return self
        narrow = None if self.narrow is None else replace(self.narrow, bits=self.narrow.bits + 1)
        return replace(self, bits=self.bits + 1, narrow=narrow, trellis=False)

    def elements(self) -> npt.NDArray[np.float32]:
        """Give the value of every code in units of its scale.

        Returns:
            float32, the weight's shape: `codes - zero_point`, or what the bit patterns stand for.
        """
        minifloat = element(self.format)
        if minifloat is not None:
            return code_values(minifloat)[self.codes.view(np.uint8)]
        values = self.codes.astype(np.float32)
        return values if self.zero_point is None else values - self.spread(self.zero_point).astype(np.float32)

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Lay out what belongs to the scales as the weights lie.

        Args:
            values: One value for each scale, in the scales' shape.

        Returns:
            An array that broadcasts to the weight's shape.
        """
        return spread(values, self.codes.shape, self.axis, self.block_size)

    def dequantize(self) -> npt.NDArray[np.float32]:
        """Give the weights the codes stand for.

        Returns:
            `scale * elements` as float32, in the weight's shape.
        """
        values = self.elements()
        values *= self.spread(self.scale)
        return values

    def stand_ins(self, weight: str) -> dict[str, npt.NDArray[np.float32]]:
        """Give every initializer that rounding this weight changes.

        Args:
            weight: Name of the weight.

        Returns:
            Initializer name -> float32 values that stand in for it.
        """
        corrected = {} if self.bias is None else {self.bias.name: self.bias.values}
        return {weight: self.dequantize()} | corrected
