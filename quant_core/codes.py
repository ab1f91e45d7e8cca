"""Codes of weights and the grids of activations: plain values, which whoever writes or sizes a file needs.

They stand apart from what computes them, which loads torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from quant_core.number_formats import Minifloat, code_values, element, half_nearest, positive_values
from quant_core.outliers import EXCESS_BITS, Outliers
from quant_core.spec.weight_grid import INT8_BITS, WeightFormat
from quant_core.spec.width import NARROW

SPREAD = "spread"
"""Key of `model.meta` under which constants stand that were one number and became one for each channel: name -> that
number, and the factor of each channel, float32."""

ChannelAxis = int | tuple[int, ...] | None
"""Where the channels of a weight lie: along an axis, along several in rising order, or nowhere."""


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
        codes: int8, the weight's shape: integers in `[-2^(b-1), 2^(b-1) - 1]`, or a floating format's bit patterns.
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
        """Give the codes without what outliers add to them.

        Returns:
            int8, the weight's shape, in the range of b bits.
        """
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
        half = 1 << (self.bits - 1)
        if self.narrow is not None:
            halves = np.where(self.narrow.channels, 1 << (self.narrow.bits - 1), half)
            return self.spread((-halves).astype(np.int8)), self.spread((halves - 1).astype(np.int8))
        low, high = np.array(-half, dtype=np.int8), np.array(half - 1, dtype=np.int8)
        if self.outliers is None:
            return low, high
        reach = 1 << (EXCESS_BITS - 1)
        low, high = (np.full(self.codes.size, limit, dtype=np.int8) for limit in (low, high))
        low[self.outliers.positions] -= np.int8(reach)
        high[self.outliers.positions] += np.int8(reach - 1)
        return low.reshape(self.codes.shape), high.reshape(self.codes.shape)

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


def spread(
    values: npt.NDArray[Any], shape: tuple[int, ...], axis: ChannelAxis, block_size: int | None
) -> npt.NDArray[Any]:
    """Lay out one value per scale as the weights lie.

    Args:
        values: `[]`, `[C]`, or `[C, blocks]` where there is a block size.
        shape: The weight's shape.
        axis: Its channel axes, or None for one channel.
        block_size: Weights in a block, or None.

    Returns:
        An array that broadcasts to the weight's shape.
    """
    axes = channel_axes(axis)
    if block_size is None:
        return values.reshape([size if i in axes else 1 for i, size in enumerate(shape)]) if axes else values
    order = channels_first(len(shape), axis)
    weights = math.prod(shape) // max(1, len(values))
    rows = np.repeat(values, block_size, axis=1)[:, :weights].reshape([shape[i] for i in order])
    return rows.transpose(np.argsort(order))


def channel_axes(axis: ChannelAxis) -> tuple[int, ...]:
    """List channel axes.

    Args:
        axis: One, several or none.

    Returns:
        The axes.
    """
    if axis is None:
        return ()
    return (axis,) if isinstance(axis, int) else axis


def channels_first(rank: int, axis: ChannelAxis) -> tuple[int, ...]:
    """Give the order of axes that brings channels to the front.

    Args:
        rank: Number of axes of the weight.
        axis: Its channel axes.

    Returns:
        Channel axes, then the others, both in rising order.
    """
    axes = channel_axes(axis)
    return (*axes, *(i for i in range(rank) if i not in axes))


def channel_count(shape: tuple[int, ...], axis: ChannelAxis) -> int:
    """Count channels.

    Args:
        shape: The weight's shape.
        axis: Its channel axes, or None for one channel.

    Returns:
        The number; 1 without an axis.
    """
    return math.prod(shape[i] for i in channel_axes(axis))
