"""GPTQ: round input by input, each time moving what was lost onto the inputs still to come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.quantizers.bias_correction import corrected_bias
from quant_core.quantizers.grids.elements import Elements, Integers, code_range, elements
from quant_core.quantizers.input_moments import InputMoments
from quant_core.quantizers.rows import from_rows, scale_to_rows, to_rows
from quant_core.quantizers.weight import quantize_weight
from quant_core.spec.weight_grid import WeightGrid

_DAMPING = 0.01
_BLOCK = 64
_CHANNELS = WeightGrid()


def gptq(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    moments: InputMoments,
    widths: Sequence[int],
    bias: CorrectedBias | None = None,
    beta: float = 0.0,
    grid_of: Callable[[int], WeightGrid] = lambda _: _CHANNELS,
) -> Mapping[int, QuantizedWeight]:
    """Round a weight at several bit-widths so that the layer's output changes least.

    Minimises `tr((Q - W) H (Q - W)^T)` greedily over inputs in the order of falling H_kk: with U the upper Cholesky
    factor of `(H + damping * mean(diag H) I)^-1`, input k is rounded and `(w_k - q_k) / U_kk * U_k,>k` is taken from
    the inputs after it (Frantar et al., GPTQ, arXiv:2210.17323, equation 2 and algorithm 1). Scales are those of least
    squared weight error; those of blocks and their zero points are found on the float weights before anything moves.

    With beta above 0 this is FOEM (Zheng et al., First-Order Error Matters, arXiv:2507.11017): what was moved so far
    leaves a gradient `beta H (w - w_float)` that GPTQ takes for zero. Minimised with it, input k first gives back
    `beta (w_k - w_float,k)`, and as much of what is then left is not passed on. As in the authors' own code, inputs
    give back when their turn comes, not at every step.

    Args:
        layer: A layer with input moments.
        weight: Its float weight.
        moments: Second moments of its inputs.
        widths: Bit-widths, 2 to 8; all are rounded in one sweep.
        bias: The layer's float bias, if it may be corrected.
        beta: Weight of the first-order term, 0 to 1; 0 is GPTQ to the last bit.
        grid_of: Bits -> the grid of that width.

    Returns:
        Bits -> codes and scales.
    """
    rows = to_rows(layer, np.asarray(weight, dtype=np.float32))
    groups, outputs, inputs = rows.shape
    starts = {bits: quantize_weight(weight, bits, layer.axis, grid_of(bits)) for bits in widths}
    second = moments.shrunk().cpu()
    order = second.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    columns = order[:, None, :].expand(groups, outputs, inputs)
    factor = inverse_factor(second, order)
    inverse = order.argsort(dim=1)[:, None, :].expand(groups, outputs, inputs)
    result = {}
    for together in _sweeps(widths, grid_of):
        grids = [_laid_out(layer, starts[bits], columns) for bits in together]
        work = rows.gather(2, columns).repeat(1, len(together), 1)
        values = _sweep(work, factor, _stack(grids), beta)
        for i, bits in enumerate(together):
            own = values[:, i * outputs : (i + 1) * outputs].gather(2, inverse)
            rounded = _encoded(layer, starts[bits], own)
            if bias is not None:
                rounded = replace(rounded, bias=corrected_bias(layer, weight, rounded, moments, bias))
            result[bits] = rounded
    return result


@dataclass(frozen=True)
class _Grid:
    """Where rows are rounded to, input by input or for all inputs at once.

    Attributes:
        steps: `[groups, inputs or 1, rows]`.
        low: Smallest value in steps, of the same or a broadcastable shape; infinite where `kinds` clips.
        high: Largest value.
        kinds: What rounds to the nearest value.
    """

    steps: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    kinds: Elements | None

    def nearest(self, column: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Round one input of every row.

        Args:
            column: `[groups, 1, rows]`.
            k: The input.

        Returns:
            Values in steps, and the steps.
        """
        steps, low, high = (_column(part, k) for part in (self.steps, self.low, self.high))
        if self.kinds is not None:
            return self.kinds.nearest(column / steps), steps
        return torch.clamp(torch.round(column / steps), low, high), steps


def _column(part: torch.Tensor, k: int) -> torch.Tensor:
    return part if part.shape[1] == 1 else part[:, k : k + 1]


def _sweeps(widths: Sequence[int], grid_of: Callable[[int], WeightGrid]) -> list[list[int]]:
    """All integers are rounded in one sweep; a floating format takes one of its own."""
    whole = [bits for bits in widths if grid_of(bits).format == "int"]
    return [*([whole] if whole else []), *([bits] for bits in widths if bits not in whole)]


def _laid_out(layer: Layer, start: QuantizedWeight, columns: torch.Tensor) -> _Grid:
    """Lay out the grid of one width as the rows lie, inputs in the order they will be rounded."""
    groups, outputs, _ = columns.shape

    def in_order(values: npt.NDArray[np.generic]) -> torch.Tensor:
        if start.block_size is None:
            steps = scale_to_rows(layer, values.astype(np.float32)).expand(groups, outputs, 1)
            return steps.transpose(1, 2).contiguous()
        laid = to_rows(layer, np.broadcast_to(start.spread(values), layer.shape)).float()
        return laid.gather(2, columns).transpose(1, 2).contiguous()

    steps = in_order(start.scale)
    kinds = elements(start.bits, WeightGrid(format=start.format))
    if not isinstance(kinds, Integers):
        return _Grid(steps, steps, steps, kinds)
    low, high = (torch.full_like(steps, limit) for limit in code_range(start.bits))
    if start.zero_point is not None:
        shift = in_order(start.zero_point)
        low, high = low - shift, high - shift
    return _Grid(steps, low, high, None)


def _stack(grids: Sequence[_Grid]) -> _Grid:
    return _Grid(
        torch.cat([grid.steps for grid in grids], dim=2),
        torch.cat([grid.low for grid in grids], dim=2),
        torch.cat([grid.high for grid in grids], dim=2),
        grids[0].kinds,
    )


def _encoded(layer: Layer, start: QuantizedWeight, values: torch.Tensor) -> QuantizedWeight:
    if start.zero_point is not None:
        zero_points = np.broadcast_to(start.spread(start.zero_point), layer.shape)
        values = values + to_rows(layer, zero_points).float()
    codes = elements(start.bits, WeightGrid(format=start.format)).encode(values)
    return replace(start, codes=from_rows(layer, torch.from_numpy(codes)).astype(np.int8))


def inverse_factor(second: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Factor the damped inverse of H in the order inputs will be rounded.

    Args:
        second: H, `[groups, inputs, inputs]`, positive semidefinite.
        order: `[groups, inputs]`, the order of the inputs.

    Returns:
        U, upper triangular, with `U^T U = (H + damping I)^-1` in that order; float32.
    """
    # With A = R R^T and R upper triangular, U = R^-1. R is the Cholesky factor of A read backwards: one factor and one
    # triangular inverse in place of two factors and a whole inverse.
    backwards = order.flip(1)
    H = second.gather(1, backwards[:, :, None].expand_as(second))
    H = H.gather(2, backwards[:, None, :].expand_as(H)).double()
    diagonal = H.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(dim=1, keepdim=True).clamp_min(1e-12)
    damping, added = _DAMPING, 0.0
    while True:
        diagonal += (damping - added) * mean
        lower, failed = torch.linalg.cholesky_ex(H)
        if not bool(failed.any()):
            break
        damping, added = 10 * damping, damping  # rank-deficient beyond rounding error: too few columns
    upper: torch.Tensor = _inverse(lower).flip(1, 2).float()
    return upper


def _inverse(lower: torch.Tensor) -> torch.Tensor:
    """Invert lower triangular matrices by halves: `[[A, 0], [B, C]]^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]]`."""
    size = lower.shape[-1]
    if size <= _BLOCK:
        eye = torch.eye(size, dtype=lower.dtype).expand_as(lower)
        whole: torch.Tensor = torch.linalg.solve_triangular(lower, eye, upper=False)
        return whole
    half = size // 2
    result = torch.zeros_like(lower)
    result[:, :half, :half] = _inverse(lower[:, :half, :half])
    result[:, half:, half:] = _inverse(lower[:, half:, half:])
    crossing = lower[:, half:, :half] @ result[:, :half, :half]
    result[:, half:, :half] = -(result[:, half:, half:] @ crossing)
    return result


def _sweep(work: torch.Tensor, factor: torch.Tensor, grid: _Grid, beta: float) -> torch.Tensor:
    # Inputs lie along the first axis, so that one input of all rows is one piece of memory.
    work = work.transpose(1, 2).contiguous()
    inputs = work.shape[1]
    values = torch.empty_like(work)
    original = work.clone() if beta else work
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        lost = torch.empty(work.shape[0], stop - start, work.shape[2])
        for k in range(start, stop):
            column = work[:, k : k + 1]
            if beta:
                column = column - beta * (column - original[:, k : k + 1])
            value, steps = grid.nearest(column, k)
            values[:, k : k + 1] = value
            if beta:
                column = column - beta * (column - original[:, k : k + 1])
            error = (column - value * steps) / factor[:, k : k + 1, k : k + 1]
            work[:, k + 1 : stop] -= factor[:, k, k + 1 : stop, None] * error
            lost[:, k - start : k - start + 1] = error
        work[:, stop:] -= factor[:, start:stop, stop:].transpose(1, 2) @ lost
    return values.transpose(1, 2)
