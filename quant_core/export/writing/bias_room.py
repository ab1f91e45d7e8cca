"""Steps that leave room for a bias: integer kernels add it in units of input step times weight step, as int32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from quant_core.codes import QuantizedWeight
from quant_core.codes.number_formats import half_from

_LARGEST = 2.0**30
"""Largest integer bias; the products that are added to it take the rest of 32 bits."""


def with_room_for_bias(
    weight: QuantizedWeight, bias: npt.NDArray[np.floating], step: float
) -> QuantizedWeight:
    """Raise the steps of channels whose weights are next to nothing beside their bias.

    Batch normalization folded into a convolution leaves channels with weights of 1e-8 and a bias of 5. In units of
    such steps that bias does not fit 32 bits, and kernels cut it off. A step of `|b| / (2^30 s_x)` holds it; it changes
    what the weights add by less than the last bit of the bias.

    Args:
        weight: Codes and scales of the layer, one scale a channel. A trellis is given up where steps must rise.
        bias: Its bias, one value a channel.
        step: Step s_x of its input.

    Returns:
        The same weight, or one with larger steps and codes nearer zero in such channels.
    """
    if weight.axis is None or not weight.suits_int8_kernels:
        return weight
    least = np.abs(np.broadcast_to(bias.reshape(-1), weight.scale.shape).astype(np.float64)) / (
        _LARGEST * step
    )
    size = np.abs(weight.scale)
    if not (least > size).any():
        return weight
    grown = half_from(np.copysign(np.maximum(size, least), weight.scale).astype(np.float32))
    scale = np.where(least > size, grown, weight.scale)
    ratio = weight.spread((weight.scale / scale).astype(np.float64))
    weight = weight.in_full()
    codes = np.round(weight.elements() * ratio)
    if weight.zero_point is not None:
        codes += weight.spread(weight.zero_point)
    return replace(weight, codes=codes.astype(np.int8), scale=scale)
