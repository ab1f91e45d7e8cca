"""Weights on a grid: scales of least error, nearest codes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.codes import ChannelAxis, QuantizedWeight
from quant_core.errors import SpecError
from quant_core.quantizers.grids.elements import code_range, elements
from quant_core.quantizers.grids.range_search import Best, range_of, search_asymmetric, search_symmetric
from quant_core.quantizers.grids.scaled_rows import from_scaled_rows, scales_shape, to_scaled_rows
from quant_core.quantizers.grids.stored_scales import StoredScales, stored_scales, tensor_factor
from quant_core.spec import FORMAT_BITS
from quant_core.spec.weight_grid import WeightGrid

_CHUNK_ELEMENTS = 1 << 17
_NOT_CLIPPED = 0.999
"""Share of the weights on either side that `percentile` does not clip."""

_CHANNELS = WeightGrid()


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """Weights that share a scale side by side, laid out once for every width that is searched.

    Attributes:
        rows: `[scales, weights]`.
        low: The smallest weight of each scale, `[scales, 1]`; no column where there are no weights.
        high: The largest.
    """

    rows: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, weight: npt.NDArray[np.floating], axis: ChannelAxis, grid: WeightGrid) -> ScaledRows:
        """Lay a weight out.

        Args:
            weight: Float weights of any shape.
            axis: Channel axes, with a scale for each channel, or None for one scale.
            grid: The grid, which tells how weights share scales.

        Returns:
            Its rows.
        """
        rows = to_scaled_rows(weight, _axis(axis, grid), grid.block)
        if not rows.numel():
            return cls(rows, rows, rows)
        # aminmax takes 17 times as long
        return cls(rows, rows.amin(1, keepdim=True), rows.amax(1, keepdim=True))

    @property
    def signs(self) -> Tensor:
        """-1 where the largest weight lies above 0: the grid, which reaches further below, is then turned round."""
        if not self.rows.numel():
            return torch.ones(len(self.rows), 1)
        return torch.where(self.high > -self.low, -1.0, 1.0)

    def beyond(self, share: float) -> Tensor:
        """Tell where a few weights lie far out.

        Args:
            share: How many root mean squares of their row.

        Returns:
            Rows with a weight that lies further out, `[scales]`.
        """
        if not self.rows.numel():
            return torch.zeros(len(self.rows), dtype=torch.bool)
        largest = torch.maximum(self.high, -self.low)[:, 0]
        return largest > share * self.mean_size

    @cached_property
    def mean_size(self) -> Tensor:
        """Root mean square of each row, `[scales]`."""
        found: Tensor = torch.linalg.vector_norm(self.rows, dim=1) / math.sqrt(self.rows.shape[1])
        return found


@dataclass(frozen=True)
class _Steps:
    scale: Tensor
    zero_point: Tensor | None
    factor: float | None


def quantize_weight(
    weight: npt.NDArray[np.floating], bits: int, axis: ChannelAxis, grid: WeightGrid = _CHANNELS
) -> QuantizedWeight:
    """Round a weight tensor to the nearest codes under the scales that the grid's range search finds.

    By least squared error, for each scale's weights: `min over s, z of sum_k (w_k - s * (clip(round(w_k / s) + z, qmin,
    qmax) - z))^2`, with z = 0 where the grid is symmetric, and for floating formats the nearest of their values in
    place of the integers. The search `hessian` needs the layer's inputs, which only GPTQ has; here it is this one too.
    Only steps that the file can store are tried. Integers of b bits reach `2^(b-1)` steps on one side and one less on
    the other; where the grid may be turned, the step of weights whose largest one lies above 0 is negative.

    Args:
        weight: Finite float weights of any shape.
        bits: Bits of each code, 2 to 8.
        axis: Channel axes, with a scale for each channel, or None for one scale.
        grid: The grid; by default symmetric integers with a scale for each channel.

    Returns:
        Codes and scales.

    Raises:
        SpecError: If the width does not exist, or the grid's format has another.
    """
    return round_to_nearest(weight, find_steps(weight, bits, axis, grid))


def find_steps(
    weight: npt.NDArray[np.floating],
    bits: int,
    axis: ChannelAxis,
    grid: WeightGrid = _CHANNELS,
    *,
    most: int | None = None,
    laid: ScaledRows | None = None,
) -> QuantizedWeight:
    """Search the scales of `quantize_weight`, without codes.

    Args:
        weight: Finite float weights of any shape.
        bits: Bits of each code, 2 to 8.
        axis: Channel axes, with a scale for each channel, or None for one scale.
        grid: The grid.
        most: About how many weights of each scale to look at, evenly drawn, beside its smallest and largest.
        laid: The weight as `ScaledRows.of` gives it for this axis and grid, where it is laid out already.

    Returns:
        Scales, and codes that do not count.

    Raises:
        SpecError: If the width does not exist, or the grid's format has another.
    """
    code_range(bits)
    if FORMAT_BITS.get(grid.format, bits) != bits:
        raise SpecError(
            f"{grid.format} has {FORMAT_BITS[grid.format]} bits, not {bits}.",
            remedy=f"Give {FORMAT_BITS[grid.format]} bits, or the format int.",
        )
    laid = ScaledRows.of(weight, axis, grid) if laid is None else laid
    axis, steps = _axis(axis, grid), _steps_of(laid, bits, grid, most)
    shape = scales_shape(weight.shape, axis, grid.block)
    zero_point = steps.zero_point
    return QuantizedWeight(
        codes=np.zeros(weight.shape, dtype=np.int8),
        scale=steps.scale.numpy().reshape(shape).copy(),
        axis=axis,
        bits=bits,
        zero_point=None if zero_point is None else zero_point.numpy().astype(np.int8).reshape(shape),
        block_size=grid.block,
        format=grid.format,
        tensor_scale=steps.factor,
    )


def with_steps_of(
    start: QuantizedWeight, grid: WeightGrid, laid: ScaledRows, chosen: Tensor, *, most: int | None = None
) -> QuantizedWeight:
    """Search the scales of some rows; the others keep theirs.

    Args:
        start: Scales of all rows.
        grid: The grid, of integers.
        laid: The weight's rows.
        chosen: Which of them are searched, `[scales]`.
        most: As `find_steps` has it.

    Returns:
        The same with those scales and zero points.
    """
    if not bool(chosen.any()):
        return start
    rows = ScaledRows(laid.rows[chosen], laid.low[chosen], laid.high[chosen])
    steps, at = _steps_of(rows, start.bits, grid, most), chosen.numpy().reshape(start.scale.shape)
    scale, zero_point = start.scale.copy(), start.zero_point
    scale[at] = steps.scale.numpy()
    if zero_point is not None and steps.zero_point is not None:
        zero_point = zero_point.copy()
        zero_point[at] = steps.zero_point.numpy().astype(np.int8)
    return replace(start, scale=scale, zero_point=zero_point)


def drawn_in(start: QuantizedWeight, grid: WeightGrid, share: float) -> QuantizedWeight:
    """Draw the ranges of all scales in; zero points stay, so that both ends move alike.

    Args:
        start: Scales.
        grid: The grid they belong to.
        share: Factor of the steps.

    Returns:
        The same with the nearest steps that the file can store, and codes that do not count.
    """
    scales = stored_scales(grid, start.tensor_scale)
    steps = scales.stored(torch.from_numpy(start.scale.reshape(-1) * np.float32(share)))
    return replace(start, scale=steps.numpy().reshape(start.scale.shape).copy())


def round_to_nearest(weight: npt.NDArray[np.floating], start: QuantizedWeight) -> QuantizedWeight:
    """Round a weight tensor to the nearest codes under given scales.

    Args:
        weight: Float weights.
        start: Scales, zero points and format.

    Returns:
        The same with the nearest codes.
    """
    rows = to_scaled_rows(weight, start.axis, start.block_size)
    kinds = elements(start.bits, WeightGrid(format=start.format))
    steps = torch.from_numpy(start.scale.reshape(-1, 1))
    shifts = None
    if start.zero_point is not None:
        shifts = torch.from_numpy(start.zero_point.astype(np.float32).reshape(-1, 1))
    codes = np.empty(rows.shape, dtype=np.int8)
    begin = 0
    for chunk in _chunks(rows):
        end = begin + len(chunk)
        scaled = chunk / steps[begin:end]
        if shifts is not None:
            scaled += shifts[begin:end]
        codes[begin:end] = kinds.encode(kinds.nearest(scaled))
        begin = end
    return replace(start, codes=from_scaled_rows(codes, weight.shape, start.axis, start.block_size))


def _steps_of(laid: ScaledRows, bits: int, grid: WeightGrid, most: int | None) -> _Steps:
    rows = laid.rows
    every = 0 if most is None or not rows.numel() else max(1, rows.shape[1] // most)
    counts = None
    sign = laid.signs if grid.turns(bits) else None
    if grid.range_search == "minmax":
        rows = torch.cat([laid.low, laid.high], dim=1)  # nothing else is asked for
    elif every > 1:
        rows = torch.cat([rows[:, ::every], laid.low, laid.high], dim=1)
        counts = torch.full(rows.shape[1:], float(every))
        counts[-2:] = 1
    elif every:
        counts = torch.ones(rows.shape[1:])
    steps = _find_steps(rows if sign is None else rows * sign, bits, grid, counts)
    return steps if sign is None else replace(steps, scale=steps.scale * sign[:, 0])


def _find_steps(rows: Tensor, bits: int, grid: WeightGrid, counts: Tensor | None) -> _Steps:
    scales = stored_scales(grid, tensor_factor(rows, grid))
    if not rows.numel():
        return _Steps(
            torch.ones(len(rows)), None if grid.symmetric else torch.zeros(len(rows)), scales.factor
        )
    found = [_search(chunk, bits, grid, scales, counts) for chunk in _chunks(rows)]
    scale = _revive_dead(torch.cat([best.scale for best in found]))
    zero_point = None if grid.symmetric else torch.cat([best.zero_point for best in found])
    return _Steps(scale, zero_point, scales.factor)


def _search(rows: Tensor, bits: int, grid: WeightGrid, scales: StoredScales, counts: Tensor | None) -> Best:
    kinds = elements(bits, grid)
    if grid.range_search in {"minmax", "percentile"}:
        share = 1.0 if grid.range_search == "minmax" else _NOT_CLIPPED
        return range_of(rows, kinds, scales, symmetric=grid.symmetric, share=share)
    search = search_symmetric if grid.symmetric else search_asymmetric
    return search(rows, kinds, scales, bits, counts)


def _axis(axis: ChannelAxis, grid: WeightGrid) -> ChannelAxis:
    return None if grid.granularity == "tensor" else axis


def _chunks(rows: Tensor) -> tuple[Tensor, ...]:
    return torch.split(rows, max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1])))


def _revive_dead(scale: Tensor) -> Tensor:
    # A row of zeros has no scale of its own. The bias is later stored in steps of the scale, so borrow a
    # sensible one instead of a denormal that would overflow it or a large one that would coarsen it.
    dead = scale <= torch.finfo(torch.float32).tiny
    if not bool(dead.any()):
        return scale
    alive = scale[~dead]
    return torch.where(dead, alive.median() if len(alive) else torch.tensor(1.0), scale)
