"""Where the channels of a weight lie, and values that each has one of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

SPREAD = "spread"
"""Key of `model.meta` under which constants stand that were one number and became one for each channel: name -> that
number, and the factor of each channel, float32."""

ChannelAxis = int | tuple[int, ...] | None
"""Where the channels of a weight lie: along an axis, along several in rising order, or nowhere."""


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
