"""GPTQ: round input by input, each time moving what was lost onto the inputs still to come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from quant_core.codes import CorrectedBias, QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.quantizers.bias_correction.input_means import corrected_bias
from quant_core.quantizers.moments.feedback import Feedback
from quant_core.quantizers.moments.input_moments import Moments
from quant_core.quantizers.moments.principal_moments import PrincipalMoments
from quant_core.quantizers.moments.rows import to_rows
from quant_core.quantizers.rounding.grid_sweep import SWEEP_ELEMENTS, GridSweep
from quant_core.quantizers.rounding.kept_apart import compared, narrowed
from quant_core.quantizers.rounding.range_candidates import range_candidates
from quant_core.quantizers.rounding.range_choice import choose_ranges
from quant_core.spec.weight_grid import WeightGrid
from quant_core.spec.width import sparse_of, weight_of

_TRIED_ROWS, _WIDE, _TRIED_OF_WIDE = 64, 1024, 32
"""Rows on which steps of outliers are tried; in layers with more inputs than that, which make up for it, half as
many."""
_CHANNELS = WeightGrid()
_COLUMNS_AN_INPUT = 2

Improve = Callable[
    [Layer, npt.NDArray[np.floating], Sequence[QuantizedWeight], torch.Tensor], Sequence[QuantizedWeight]
]
"""Layer, weight, codes at several widths, second moments -> better codes."""


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
    such rows alone.

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
    used = moments if bias is None else moments.centred()
    second = cache(lambda: used.shrunk().cpu())
    feedback = used.feedback() if isinstance(used, PrincipalMoments) else Feedback.of(second())
    sweep = GridSweep.of(layer, rows, feedback, beta)
    if not are_known(moments, rows.shape[2]):
        improve = None

    def with_bias(rounded: QuantizedWeight) -> QuantizedWeight:
        if bias is None:
            return rounded
        return replace(rounded, bias=corrected_bias(layer, weight, rounded, moments, bias))

    dense = sorted(set(map(weight_of, widths)))
    known = {} if given is None else {bits: given[bits] for bits in dense if bits in given}
    tried = range_candidates(weight, [bits for bits in dense if bits not in known], layer, grid_of)
    started = known | choose_ranges(sweep, tried)
    result: dict[int, QuantizedWeight] = {}
    for together in _sweeps(dense, grid_of, rows.numel()):
        starts = [started[bits] for bits in together]
        found = sweep.codes(starts, sweep.sweep(starts)[0])
        if improve is not None and grid_of(together[0]).format == "int":
            found = list(improve(layer, weight, found, second()))
        result |= {bits: with_bias(rounded) for bits, rounded in zip(together, found, strict=True)}

    sparse = [width for width in widths if sparse_of(width)]
    if not sparse:
        return result
    prices = sweep.weighted(feedback.pivots)
    for some in _with_outliers_together(sparse, rows):
        without = [result[weight_of(width)] for width in some]
        choices = [
            [given[width]]
            if given is not None
            else narrowed(weight, start, sparse_of(width), grid_of(start.bits), prices)
            for start, width in zip(without, some, strict=True)
        ]
        kept = _with_outliers(sweep, choices)
        if improve is not None:
            kept = list(improve(layer, weight, kept, second()))
        for width, apart, plain in zip(some, kept, without, strict=True):
            rounded = compared(apart, plain, lambda changed: output_error(layer, rows, second(), changed))
            result[width] = with_bias(rounded)
    return result


def _sweeps(widths: Sequence[int], grid_of: Callable[[int], WeightGrid], elements: int) -> list[list[int]]:
    """Integers are rounded in one sweep, as far as memory allows; a floating format takes one of its own."""
    whole = [bits for bits in widths if grid_of(bits).format == "int"]
    size = max(1, SWEEP_ELEMENTS // max(1, elements))
    return [
        *(whole[at : at + size] for at in range(0, len(whole), size)),
        *([bits] for bits in widths if bits not in whole),
    ]


def _with_outliers_together(widths: Sequence[int], rows: torch.Tensor) -> list[Sequence[int]]:
    """Widths with outliers that are tried in one sweep: limits lie beside the rows, and each has several steps."""
    tried = rows[:, :: _tried_step(rows)].numel()
    size = max(1, SWEEP_ELEMENTS // (8 * tried))
    return [widths[at : at + size] for at in range(0, len(widths), size)]


def _with_outliers(sweep: GridSweep, choices: Sequence[Sequence[QuantizedWeight]]) -> list[QuantizedWeight]:
    """Codes of each width under those of its steps that lose least, as far as some of the rows tell."""
    step = _tried_step(sweep.rows)
    values, lost = sweep.sweep([start for several in choices for start in several], step)
    best = lost.sum(1).reshape(len(choices), -1).argmin(1).tolist()
    starts = [several[at] for several, at in zip(choices, best, strict=True)]
    if step == 1:
        each = values.reshape(len(choices), -1, *values.shape[1:])
        return sweep.codes(starts, each[torch.arange(len(choices)), best])
    return sweep.codes(starts, sweep.sweep(starts)[0])


def _tried_step(rows: torch.Tensor) -> int:
    """Steps of outliers are tried on one row in so many."""
    _, outputs, inputs = rows.shape
    tried = _TRIED_OF_WIDE if inputs > _WIDE and outputs > _TRIED_ROWS else _TRIED_ROWS
    return -(-outputs // tried)


def are_known(moments: Moments, inputs: int) -> bool:
    """Tell whether moments are known well enough to improve codes by, one by one.

    Args:
        moments: Second moments of a layer's inputs.
        inputs: How many inputs each output has.

    Returns:
        False of fewer than two independent columns for each input, which codes would learn by heart.
    """
    return moments.independent >= _COLUMNS_AN_INPUT * inputs


def output_error(layer: Layer, rows: torch.Tensor, second: torch.Tensor, weight: QuantizedWeight) -> float:
    """Give what the outputs of a layer change by, `tr(E H E^T)` with E = Q(W) - W.

    Args:
        layer: The layer.
        rows: Its float weight, `[groups, outputs, inputs]`.
        second: H, the second moments of its inputs, `[groups, inputs, inputs]`.
        weight: Its codes.

    Returns:
        The error, in the mean over columns.
    """
    lost = to_rows(layer, weight.dequantize()) - rows
    return float(((lost @ second) * lost).sum())
