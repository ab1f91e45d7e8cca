"""Of the ranges that are tried for a weight's channels those under which GPTQ loses least."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from quant_core.codes import QuantizedWeight
from quant_core.quantizers.rounding.grid_sweep import SWEEP_ELEMENTS, Grid, GridSweep
from quant_core.quantizers.rounding.range_candidates import LOOKED_AT

MOST_SWEPT_ROWS = 64
"""Outputs up to which ranges are tried by a sweep; in layers of more their error is foretold."""
_CHUNK_ELEMENTS = 1 << 17
"""Weights whose error is foretold at a time, few enough to stay in the processor's caches."""
_CLIPPED_SWEPT, _CLIPPED = 2.0, 1.5
"""How much better ranges of least weight error must be, for a channel that was swept and otherwise: they clip most,
which takes from the size of every output, and what layers lose of it adds up where other errors do not."""


def choose_ranges(
    sweep: GridSweep, tried: Mapping[int, Sequence[QuantizedWeight]]
) -> dict[int, QuantizedWeight]:
    """Let each channel of each width keep the range under which its output error comes out least.

    By a sweep of all rows where there are few outputs. In layers of more the error is foretold as
    `sum_k R_kk^2 (Q(w_k) - w_k)^2`, R the triangular factor and Q the nearest code: what GPTQ loses at input k is
    `R_kk^2 e_k^2`, and e_k is what rounding changes there, in one weight that was moved little.

    Args:
        sweep: The layer's sweeps.
        tried: Width -> nearest codes in each of its ranges, that of least weight error last.

    Returns:
        Width -> scales and zero points to round from.
    """
    if sweep.rows.shape[1] <= MOST_SWEPT_ROWS:
        return _by_sweep(sweep, tried)
    some = _looked_at(sweep.turned, sweep.feedback.pivots)
    every = sweep.turned, sweep.feedback.pivots.T[..., None]

    def foretold(start: QuantizedWeight) -> torch.Tensor:
        grid = sweep.grid([start])
        return _foretold(*(some if len(grid.steps) == 1 else every), grid)

    return {
        bits: starts[0]
        if len(starts) == 1
        else _best(starts, torch.stack([foretold(start) for start in starts]), _CLIPPED)
        for bits, starts in tried.items()
    }


def _by_sweep(sweep: GridSweep, tried: Mapping[int, Sequence[QuantizedWeight]]) -> dict[int, QuantizedWeight]:
    """Of each width's ranges the best, all of them swept together as far as memory allows."""
    chosen = {bits: starts[0] for bits, starts in tried.items()}
    open_widths = [bits for bits, starts in tried.items() if len(starts) > 1]
    most = max((len(tried[bits]) for bits in open_widths), default=1)
    size = max(1, SWEEP_ELEMENTS // (math.prod(sweep.rows.shape) * most))
    for some in (open_widths[at : at + size] for at in range(0, len(open_widths), size)):
        _, lost = sweep.sweep([start for bits in some for start in tried[bits]])
        begin = 0
        for bits in some:
            end = begin + len(tried[bits])
            chosen[bits] = _best(tried[bits], lost[begin:end], _CLIPPED_SWEPT)
            begin = end
    return chosen


def _looked_at(turned: torch.Tensor, pivots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Weights that tell what rows lose, `[weights, groups, rows]`, and what each counts, `[weights, groups, 1 or rows]`:
    # evenly drawn from the order of rounding, with the smallest and the largest, which ranges cut off first.
    prices, every = pivots.T[..., None], len(turned) // LOOKED_AT
    if every <= 1:
        return turned, prices
    ends = torch.stack([turned.argmin(0), turned.argmax(0)])
    drawn = (every * prices[::every]).expand(-1, -1, turned.shape[2])
    counts = torch.cat([drawn, prices.expand_as(turned).gather(0, ends)])
    return torch.cat([turned[::every], turned.gather(0, ends)]), counts


def _foretold(turned: torch.Tensor, prices: torch.Tensor, grid: Grid) -> torch.Tensor:
    """What every row loses if nothing is moved: `sum_k R_kk^2 (Q(w_k) - w_k)^2`, `[groups * rows]`."""
    inputs, groups, rows = turned.shape
    lost = torch.zeros(groups, rows)
    size = max(1, _CHUNK_ELEMENTS // max(1, groups * rows))
    for begin in range(0, inputs, size):
        part = slice(begin, begin + size)
        values = turned[part].numpy()
        steps, low, high = (
            (each[part] if len(each) > 1 else each)[:, :, 0] for each in (grid.steps, grid.low, grid.high)
        )
        rounded = np.rint(values / steps)
        np.maximum(rounded, low, out=rounded)
        np.minimum(rounded, high, out=rounded)
        rounded *= steps
        rounded -= values
        np.square(rounded, out=rounded)
        rounded *= prices[part].numpy()
        lost += torch.from_numpy(rounded).sum(0)
    return lost.flatten()


def _best(starts: Sequence[QuantizedWeight], found: torch.Tensor, clipped: float) -> QuantizedWeight:
    # By the output error of their codes, e H e^T for each row.
    scale = starts[0].scale
    if scale.ndim == 0:
        found[-1] *= _CLIPPED
        # Of rows that lie far apart in size each has one vote.
        relative = found / found.amin(0).clamp_min(1e-30)
        return starts[int(relative.log().sum(1).argmin())]
    found[-1] *= clipped
    best = found.reshape(len(starts), len(scale), -1).sum(2).argmin(0).numpy()

    def picked(parts: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
        chosen: npt.NDArray[np.generic] = np.stack(parts)[best, np.arange(len(scale))]
        return chosen

    zero_points = [start.zero_point for start in starts if start.zero_point is not None]
    zero_point = picked(zero_points).astype(np.int8) if zero_points else None
    scales = picked([start.scale for start in starts]).astype(np.float32)
    return replace(starts[0], scale=scales, zero_point=zero_point)
