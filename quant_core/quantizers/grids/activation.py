"""Unsigned activations: the grid, and rounding to it with a straight-through gradient."""

from __future__ import annotations

import numpy as np
import torch

from quant_core.codes import ActivationGrid
from quant_core.executor.ops.tracking import differentiated

_SIGNED_HIGH = 127
_LARGEST_E4M3 = 448.0


def activation_grid(low: float, high: float, bits: int = 8) -> ActivationGrid:
    """Lay a grid over a range, widened so that it holds zero.

    Args:
        low: Smallest value to represent.
        high: Largest value to represent.
        bits: Bits of a code.

    Returns:
        The grid; a range of zero width gets a step of 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    highest = 2**bits - 1
    scale = float(np.float32((high - low) / highest))
    if scale < float(np.finfo(np.float32).tiny):
        return ActivationGrid(scale=1.0, zero_point=0, bits=bits)
    return ActivationGrid(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, highest)), bits=bits)


def symmetric_grid(low: float, high: float) -> ActivationGrid:
    """Lay a signed 8-bit grid over a range, as far to one side of zero as to the other.

    Args:
        low: Smallest value to represent.
        high: Largest value to represent.

    Returns:
        The grid, whose code for 0 is 128: as int8, codes are 128 lower and the zero point is 0.
    """
    scale = float(np.float32(max(-low, high) / _SIGNED_HIGH))
    return ActivationGrid(
        scale if scale >= float(np.finfo(np.float32).tiny) else 1.0, zero_point=_SIGNED_HIGH + 1
    )


def float8_grid(low: float, high: float) -> ActivationGrid:
    """Lay the numbers of E4M3 over a range, the largest of them on its farther end.

    Args:
        low: Smallest value to represent.
        high: Largest value to represent.

    Returns:
        The grid, `scale = max(|low|, |high|) / 448`.
    """
    scale = float(np.float32(max(-low, high) / _LARGEST_E4M3))
    return ActivationGrid(
        scale if scale >= float(np.finfo(np.float32).tiny) else 1.0, zero_point=0, element="e4m3"
    )


def fake_quantize(x: torch.Tensor, grid: ActivationGrid) -> torch.Tensor:
    """Round to the grid as QuantizeLinear and DequantizeLinear do, with a straight-through gradient.

    Args:
        x: Any float tensor.
        grid: The grid.

    Returns:
        `scale * (clip(round_half_even(x / scale) + zero_point, 0, 2^b - 1) - zero_point)`, or `scale` times the
        minifloat nearest to `x / scale`, ties to even; the gradient is that of the clipped identity.
    """
    with torch.no_grad():
        if grid.element:
            numbers = (x / grid.scale).clamp_(-_LARGEST_E4M3, _LARGEST_E4M3)
            rounded = numbers.to(torch.float8_e4m3fn).to(x.dtype).mul_(grid.scale)
        else:
            codes = (x / grid.scale).round_().add_(grid.zero_point).clamp_(0, grid.highest)
            rounded = codes.sub_(grid.zero_point).mul_(grid.scale)
    if not differentiated(x):
        return rounded
    clipped = x.clamp(grid.low, grid.high)
    return clipped + (rounded - clipped).detach()


def block_fake_quantize(x: torch.Tensor, size: int) -> torch.Tensor:
    """Round each row to 8 bits block by block, as MatMulNBits at accuracy level 4 does.

    Args:
        x: Float tensor, rows along its last axis.
        size: Elements in a block; the last one of a row may be shorter.

    Returns:
        `s * round(x (127 / max|x|))` with `s = max|x| / 127` over each block, the factor rounded to float32 as the
        kernel does: halves of the largest value, as codes of 2 bits have many, all fall to the same side.
    """
    length = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -length % size))
    blocks = padded.reshape(*x.shape[:-1], -1, size)
    largest = blocks.abs().amax(-1, keepdim=True)
    has_factor = largest > _SIGNED_HIGH / torch.finfo(x.dtype).max
    largest = torch.where(has_factor, largest, torch.ones_like(largest))
    factor = largest.new_tensor(_SIGNED_HIGH) / largest  # a number by a tensor is the reciprocal times it
    codes = torch.round(blocks * factor)
    return (codes * (largest / _SIGNED_HIGH)).reshape(padded.shape)[..., :length]


def dynamic_fake_quantize(x: torch.Tensor, bits: int = 8, samples: int = 1) -> torch.Tensor:
    """Round to the grid that DynamicQuantizeLinear would lay over this very tensor.

    Args:
        x: Any float tensor.
        bits: Bits of a code; the operator knows 8 alone.
        samples: How many samples lie one behind another along the first axis; each is rounded as if it were alone.
            Tensors whose first axis they do not divide are rounded as one.

    Returns:
        The tensor on its own grid, with a straight-through gradient.
    """
    highest = 2**bits - 1
    if x.numel() == 0:
        return x
    several = samples > 1 and x.ndim > 0 and x.shape[0] % samples == 0
    rows = x.reshape(samples, -1) if several else x
    with torch.no_grad():
        low, high = (
            (rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)) if several else (x.amin(), x.amax())
        )
        low, high = low.clamp_max(0), high.clamp_min(0)
        scale = (high - low) / highest
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero_point = torch.round(-low / scale).clamp_(0, highest)
        rounded = (rows / scale).round_().add_(zero_point).clamp_(0, highest).sub_(zero_point).mul_(scale)
    rounded = rounded.reshape(x.shape)
    if not differentiated(x):
        return rounded
    return x + (rounded - x).detach()
