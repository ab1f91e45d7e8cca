"""GPTQ: round input by input, each time moving what was lost onto the inputs still to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.quantizers.bias_correction import corrected_bias
from quant_core.quantizers.feedback import Feedback, Floats
from quant_core.quantizers.grids.elements import Elements, Integers, code_range, elements
from quant_core.quantizers.input_moments import Moments
from quant_core.quantizers.kept_apart import compared, narrowed
from quant_core.quantizers.principal_moments import PrincipalMoments
from quant_core.quantizers.range_candidates import LOOKED_AT, range_candidates
from quant_core.quantizers.rows import from_rows, scale_to_rows, to_rows
from quant_core.spec.weight_grid import WeightGrid
from quant_core.spec.width import sparse_of, weight_of

_SWEEP_ELEMENTS = 1 << 24
_TRIED_ROWS, _WIDE, _TRIED_OF_WIDE = 64, 1024, 32
"""Outputs up to which ranges are tried by a sweep, and rows on which steps of outliers are tried in layers of more; in
those with many inputs, which make up for it, half as many."""
_CHUNK_ELEMENTS = 1 << 17
_CLIPPED_SWEPT, _CLIPPED = 2.0, 1.5
"""How much better ranges of least weight error must be, for a channel that was swept and otherwise: they clip most,
which takes from the size of every output, and what layers lose of it adds up where other errors do not."""
_CHANNELS = WeightGrid()
_COLUMNS_AN_INPUT = 2

Improve = Callable[
    [Layer, npt.NDArray[np.floating], Sequence[QuantizedWeight], torch.Tensor], Sequence[QuantizedWeight]
]
"""Layer, weight, codes at several widths, second moments -> better codes."""

_Laid = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Steps, smallest and largest values in steps, each `[inputs or 1, groups, rows]`."""


def gptq(
    layer: Layer,
    weight: npt.NDArray[np.floating],
    moments: Moments,
    widths: Sequence[int],
    bias: CorrectedBias | None = None,
    beta: float = 0.0,
    grid_of: Callable[[int], WeightGrid] = lambda _: _CHANNELS,
    improve: Improve | None = None,
    given: Mapping[int, QuantizedWeight] | None = None,
) -> Mapping[int, QuantizedWeight]:
    """Round a weight at several bit-widths so that the layer's output changes least.

    Minimises `tr((Q - W) H (Q - W)^T)` greedily over inputs in the order of falling H_kk: an input is rounded and what
    that changes is made up for by the inputs after it (Frantar et al., GPTQ, arXiv:2210.17323, equation 2 and algorithm
    1; by one triangular factor of H with 1 % of its mean diagonal added, see `feedback.py`). Scales are those of least
    squared weight error; those of blocks and their zero points are found on the float weights before anything moves.
    Where the grid's search is `hessian`, the ranges of least weight error and several shares of the whole range are
    tried, and each channel keeps the one under which this error comes out least: GPTQ makes up for rounding, but not
    for clipping, so that its best ranges are often wider than those of least weight error. These must be better by half
    or more, as they are where a few weights lie far out; among 64 weights or more, from 3 bits on, they are searched in
    such rows alone. In layers of more than 64 outputs the error is foretold as `sum_k R_kk^2 (Q(w_k) - w_k)^2`, R the
    triangular factor and Q the nearest code: what GPTQ loses at input k is `R_kk^2 e_k^2`, and e_k is what rounding
    changes there, in one weight that was moved little.

    A bias that is corrected makes up for the mean error, which leaves the inputs' covariance in place of H.

    With beta above 0 this is FOEM (Zheng et al., First-Order Error Matters, arXiv:2507.11017): what was moved so far
    leaves a gradient `beta H (w - w_float)` that GPTQ takes for zero. Minimised with it, input k first gives back
    `beta (w_k - w_float,k)`, and as much of what is then left is not passed on. As in the authors' own code, inputs
    give back when their turn comes, not at every step.

    Args:
        layer: A layer with input moments.
        weight: Its float weight.
        moments: Second moments of its inputs.
        widths: Bit-widths, 2 to 8, all rounded in one sweep; with a share of outliers, 2 to 6.
        bias: The layer's float bias, if it may be corrected.
        beta: Weight of the first-order term, 0 to 1; 0 is GPTQ to the last bit.
        grid_of: Bits -> the grid of that width.
        improve: What makes integer codes better still, such as `descend` or `adaround`; left out where there are fewer
            than two independent columns for each input, which it would learn by heart.
        given: Bits -> codes found with fewer samples, whose scales and zero points are kept.

    Returns:
        Width -> codes and scales; of widths with outliers also the bits without.
    """
    rows = to_rows(layer, np.asarray(weight, dtype=np.float32))
    groups, outputs, inputs = rows.shape
    used = moments if bias is None else moments.centred()
    second = cache(lambda: used.shrunk().cpu())
    feedback = used.feedback() if isinstance(used, PrincipalMoments) else Feedback.of(second())
    columns = feedback.order[:, None, :].expand(groups, outputs, inputs)
    turned = feedback.taken(rows)

    def swept(starts: Sequence[QuantizedWeight], step: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every `step`-th output: values in steps, `[starts, groups, outputs, inputs]`, and what each loses."""
        grid = _stack(starts, [_laid_out(layer, start, columns, step) for start in starts])
        found, lost = feedback.sweep(turned[:, :, ::step].contiguous(), grid.nearest, len(starts), beta)
        return feedback.given_back(found), lost.transpose(0, 1).flatten(1)

    if moments.independent < _COLUMNS_AN_INPUT * inputs:
        improve = None
    result: dict[int, QuantizedWeight] = {}
    dense = sorted(set(map(weight_of, widths)))
    known = {} if given is None else {bits: given[bits] for bits in dense if bits in given}
    tried = range_candidates(weight, [bits for bits in dense if bits not in known], layer, grid_of)
    if outputs <= _TRIED_ROWS:
        started = known | _searched(tried, rows.shape, swept)
    else:
        looked_at = _looked_at(turned, feedback.pivots)

        def foretold(start: QuantizedWeight) -> torch.Tensor:
            grid = _stack([start], [_laid_out(layer, start, columns, 1)])
            if len(grid.steps) == 1:
                return _foretold(*looked_at, grid)
            return _foretold(turned, feedback.pivots.T[..., None], grid)

        started = known | {
            bits: starts[0]
            if len(starts) == 1
            else _best(starts, torch.stack([foretold(start) for start in starts]), _CLIPPED)
            for bits, starts in tried.items()
        }
    for together in _sweeps(dense, grid_of, rows.numel()):
        starts = [started[bits] for bits in together]
        found = [
            _encoded(layer, start, values) for start, values in zip(starts, swept(starts)[0], strict=True)
        ]
        if improve is not None and grid_of(together[0]).format == "int":
            found = list(improve(layer, weight, found, second()))
        for start, rounded in zip(starts, found, strict=True):
            if bias is not None:
                rounded = replace(rounded, bias=corrected_bias(layer, weight, rounded, moments, bias))
            result[start.bits] = rounded
    sparse = [width for width in widths if sparse_of(width)]
    if not sparse:
        return result
    price = feedback.pivots.gather(1, feedback.back)
    prices = from_rows(layer, price[:, None, :].expand(groups, outputs, inputs)).astype(np.float32)
    step = _tried_step(outputs, inputs)
    # Limits lie beside the rows, weight by weight, and each width has several steps to try.
    size = max(1, _SWEEP_ELEMENTS // (8 * rows[:, ::step].numel()))
    for some in (sparse[at : at + size] for at in range(0, len(sparse), size)):
        without = [result[weight_of(width)] for width in some]
        choices = [
            [given[width]]
            if given is not None
            else narrowed(weight, start, sparse_of(width), grid_of(start.bits), prices)
            for start, width in zip(without, some, strict=True)
        ]
        values, lost = swept([start for several in choices for start in several], step)
        by_width = lost.sum(1).reshape(len(some), -1)
        best = by_width.argmin(1).tolist()
        starts = [several[at] for several, at in zip(choices, best, strict=True)]
        if step == 1:
            values = values.reshape(len(some), -1, *values.shape[1:])[torch.arange(len(some)), best]
        else:
            values, _ = swept(starts)
        kept = [_encoded(layer, start, value) for start, value in zip(starts, values, strict=True)]
        if improve is not None:
            kept = list(improve(layer, weight, kept, second()))
        for width, apart, plain in zip(some, kept, without, strict=True):
            rounded = compared(apart, plain, lambda changed: _output_error(layer, rows, second(), changed))
            if bias is not None:
                rounded = replace(rounded, bias=corrected_bias(layer, weight, rounded, moments, bias))
            result[width] = rounded
    return result


def _tried_step(outputs: int, inputs: int) -> int:
    """Steps of outliers are tried on one row in so many."""
    rows = _TRIED_OF_WIDE if inputs > _WIDE and outputs > _TRIED_ROWS else _TRIED_ROWS
    return -(-outputs // rows)


def _searched(
    tried: Mapping[int, Sequence[QuantizedWeight]],
    shape: Sequence[int],
    swept: Callable[[Sequence[QuantizedWeight], int], tuple[torch.Tensor, torch.Tensor]],
) -> dict[int, QuantizedWeight]:
    """Of each width's scales the best, all of them swept together as far as memory allows."""
    chosen = {bits: starts[0] for bits, starts in tried.items()}
    open_widths = [bits for bits, starts in tried.items() if len(starts) > 1]
    most = max((len(tried[bits]) for bits in open_widths), default=1)
    size = max(1, _SWEEP_ELEMENTS // (math.prod(shape) * most))
    for some in (open_widths[at : at + size] for at in range(0, len(open_widths), size)):
        _, lost = swept([start for bits in some for start in tried[bits]], 1)
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


def _foretold(turned: torch.Tensor, prices: torch.Tensor, grid: _Grid) -> torch.Tensor:
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


def _output_error(layer: Layer, rows: torch.Tensor, second: torch.Tensor, weight: QuantizedWeight) -> float:
    lost = to_rows(layer, weight.dequantize()) - rows
    return float(((lost @ second) * lost).sum())


@dataclass(frozen=True)
class _Grid:
    """Where rows are rounded to, input by input or for all inputs at once.

    Attributes:
        steps: `[inputs or 1, groups, starts, rows]`.
        low: Smallest value in steps, laid out alike; of no account where `kinds` clips.
        high: Largest value.
        kinds: What rounds to the nearest value, if it is no integer.
    """

    steps: Floats
    low: Floats
    high: Floats
    kinds: Elements | None

    def nearest(self, column: Floats, k: int, out: Floats) -> Floats:
        """Round one input of every row.

        Args:
            column: `[groups, starts, rows]`.
            k: The input.
            out: Where its values in steps are written.

        Returns:
            The steps.
        """
        steps = _input(self.steps, k)
        np.divide(column, steps, out=out)
        if self.kinds is not None:
            out[...] = self.kinds.nearest(torch.from_numpy(out)).numpy()
            return steps
        np.rint(out, out=out)
        np.maximum(out, _input(self.low, k), out=out)
        np.minimum(out, _input(self.high, k), out=out)
        return steps


def _input(part: Floats, k: int) -> Floats:
    found: Floats = part[k] if len(part) > 1 else part[0]
    return found


def _sweeps(widths: Sequence[int], grid_of: Callable[[int], WeightGrid], elements: int) -> list[list[int]]:
    """Integers are rounded in one sweep, as far as memory allows; a floating format takes one of its own."""
    whole = [bits for bits in widths if grid_of(bits).format == "int"]
    size = max(1, _SWEEP_ELEMENTS // max(1, elements))
    return [
        *(whole[at : at + size] for at in range(0, len(whole), size)),
        *([bits] for bits in widths if bits not in whole),
    ]


def _laid_out(layer: Layer, start: QuantizedWeight, columns: torch.Tensor, step: int) -> _Laid:
    """Lay out steps and limits of one width as the rows lie, inputs in the order they will be rounded."""
    groups, outputs, _ = columns.shape

    def in_order(values: npt.NDArray[np.generic], *, every: bool = False) -> torch.Tensor:
        if start.block_size is None and not every:
            steps = scale_to_rows(layer, values.astype(np.float32)).expand(groups, outputs, 1)
            return steps[:, ::step].permute(2, 0, 1)
        each = values if every else np.broadcast_to(start.spread(values), layer.shape)
        laid = to_rows(layer, each).float()
        return laid.gather(2, columns)[:, ::step].permute(2, 0, 1)

    steps = in_order(start.scale)
    if start.format != "int":
        return steps, steps, steps
    if start.outliers is None:
        low, high = (torch.full_like(steps, limit) for limit in code_range(start.bits))
    else:
        low, high = (in_order(limits, every=True) for limits in start.code_limits())
    if start.zero_point is not None:
        shift = in_order(start.zero_point)
        low, high = low - shift, high - shift
    return steps, low, high


def _stack(starts: Sequence[QuantizedWeight], laid: Sequence[_Laid]) -> _Grid:
    kinds = elements(starts[0].bits, WeightGrid(format=starts[0].format))
    steps, low, high = (torch.stack(parts, dim=2).numpy() for parts in zip(*laid, strict=True))
    return _Grid(steps, low, high, None if isinstance(kinds, Integers) else kinds)


def _encoded(layer: Layer, start: QuantizedWeight, values: torch.Tensor) -> QuantizedWeight:
    values = values.float()
    if start.zero_point is not None:
        zero_points = np.broadcast_to(start.spread(start.zero_point), layer.shape)
        values = values + to_rows(layer, zero_points).float()
    codes = elements(start.bits, WeightGrid(format=start.format)).encode(values)
    return replace(start, codes=from_rows(layer, torch.from_numpy(codes)).astype(np.int8, copy=False))
