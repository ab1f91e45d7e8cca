"""Weights as rows that share a scale: the whole tensor, its channels, or their blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from quant_core.codes import ChannelAxis, channel_count, channels_first


def to_scaled_rows(
    weight: npt.NDArray[np.floating], axis: ChannelAxis, block_size: int | None
) -> torch.Tensor:
    """Put weights that share a scale side by side.

    Args:
        weight: Weights of any shape.
        axis: Channel axes, or None for one channel.
        block_size: Weights in a block of a channel, or None.

    Returns:
        float32 `[scales, weights]`; the last block of a channel is filled up with zeros, which every grid holds.
    """
    array = np.asarray(weight, dtype=np.float32)
    channels = channel_count(array.shape, axis)
    # Of a weight without elements numpy could not tell how many each channel has.
    rows = array.transpose(channels_first(array.ndim, axis)).reshape(channels, array.size // max(1, channels))
    if block_size is not None:
        missing = -rows.shape[1] % block_size
        rows = np.pad(rows, ((0, 0), (0, missing))).reshape(-1, block_size)
    return torch.from_numpy(np.require(rows, requirements=["C", "W"]))


def from_scaled_rows(
    rows: npt.NDArray[np.int8], shape: tuple[int, ...], axis: ChannelAxis, block_size: int | None
) -> npt.NDArray[np.int8]:
    """Put rows back; the inverse of `to_scaled_rows`.

    Args:
        rows: `[scales, weights]`.
        shape: The weight's shape.
        axis: Its channel axes.
        block_size: Weights in a block, or None.

    Returns:
        A contiguous array in the weight's shape.
    """
    channels = channel_count(shape, axis)
    if block_size is not None:
        weights = int(np.prod(shape)) // max(1, channels)
        rows = rows.reshape(channels, -1)[:, :weights]
    order = channels_first(len(shape), axis)
    moved = rows.reshape([shape[i] for i in order])
    return np.ascontiguousarray(moved.transpose(np.argsort(order)))


def scales_shape(shape: tuple[int, ...], axis: ChannelAxis, block_size: int | None) -> tuple[int, ...]:
    """Give the shape of a weight's scales.

    Args:
        shape: The weight's shape.
        axis: Its channel axes.
        block_size: Weights in a block, or None.

    Returns:
        `()`, `(channels,)` or `(channels, blocks)`.
    """
    channels = channel_count(shape, axis)
    if block_size is None:
        return () if axis is None else (channels,)
    return channels, -(-int(np.prod(shape)) // max(1, channels) // block_size)
