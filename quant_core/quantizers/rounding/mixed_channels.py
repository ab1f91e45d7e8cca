"""Codes of a weight whose channels have two widths, put together from its codes at each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from quant_core.codes import NarrowChannels, QuantizedWeight


def mixed_codes(row: Mapping[int, QuantizedWeight], bits: int, narrow: NarrowChannels) -> QuantizedWeight:
    """Take some channels of a weight at few bits, and the others at more.

    Output channels are rounded one by one, so that each has the codes, step, zero point and bias that it has where the
    whole weight has its width.

    Args:
        row: Bits -> codes of the whole weight, its channels along one axis.
        bits: Bits of the wide channels.
        narrow: Which channels take fewer, and how many.

    Returns:
        The weight.
    """
    wide, few = row[bits], row[narrow.bits]

    def mixed(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return np.where(narrow.channels.reshape(shape), second, first)

    along = wide.spread(narrow.channels).shape
    bias = wide.bias
    if wide.bias is not None and few.bias is not None:
        shape = wide.bias.values.shape
        bias = replace(wide.bias, values=mixed(wide.bias.values, few.bias.values, shape))
    zero_point = wide.zero_point
    if wide.zero_point is not None and few.zero_point is not None:
        zero_point = mixed(wide.zero_point, few.zero_point, wide.zero_point.shape)
    return replace(
        wide,
        codes=mixed(wide.codes, few.codes, along),
        scale=mixed(wide.scale, few.scale, wide.scale.shape),
        zero_point=zero_point,
        bias=bias,
        narrow=narrow,
    )


def stored_widths(width: int, narrow: NarrowChannels | None) -> list[int]:
    """List the widths that a weight takes its codes from.

    Args:
        width: Its own, that of the wide channels.
        narrow: Which channels take fewer bits; None where all take as many.

    Returns:
        One or two widths.
    """
    return [width] if narrow is None else [narrow.bits, width]


def at_width(
    row: Mapping[int, QuantizedWeight], width: int, narrow: NarrowChannels | None
) -> QuantizedWeight:
    """Give a weight at its width, or at its two.

    Args:
        row: Width -> codes of the whole weight.
        width: Its own, that of the wide channels.
        narrow: Which channels take fewer bits; None where all take as many.

    Returns:
        The weight.
    """
    return row[width] if narrow is None else mixed_codes(row, width, narrow)
