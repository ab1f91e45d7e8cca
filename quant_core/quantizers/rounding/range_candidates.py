"""Ranges of a weight's channels that GPTQ chooses from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from quant_core.codes import ChannelAxis, QuantizedWeight
from quant_core.ingest.layer import Layer
from quant_core.quantizers.grids.weight import ScaledRows, drawn_in, find_steps, with_steps_of
from quant_core.spec.weight_grid import WeightGrid

LOOKED_AT = 512
"""About how many weights of a row choose its range, and its smallest and largest."""
_LARGE_TABLE = 1 << 22
"""Weights in short rows of which half of the candidates for a step are tried: they lose 0.01 to 0.03 dB by it."""
_SHARES = {
    2: (0.9, 0.8, 0.7, 0.6, 0.5),
    3: (0.9, 0.8, 0.7, 0.6),
    4: (0.92, 0.84, 0.76, 0.66),
    5: (0.92, 0.84, 0.76),
    6: (0.92, 0.84),
}
"""Bits -> shares of the whole range that are tried beside it; at 8 bits there is nothing to gain."""
_FAR_OUT, _LONG_ROW = {2: 0.0, 3: 4.5, 4: 4.5, 5: 4.5, 6: 4.5}, 64
"""Bits -> root mean squares of a row beyond which a weight lies far out. Without one the range of least weight error
lies among the shares, or so near to them that it is not that much better; but at 2 bits it may lie below them anywhere,
and a few weights may all lie on some grid."""


def range_candidates(
    weight: npt.NDArray[np.floating],
    widths: Sequence[int],
    layer: Layer,
    grid_of: Callable[[int], WeightGrid],
) -> dict[int, list[QuantizedWeight]]:
    """Lay out the ranges that are tried before rounding: all of a channel, shares of it, that of least weight error.

    Args:
        weight: The weight.
        widths: Its bit-widths.
        layer: Its layer.
        grid_of: Width -> grid.

    Returns:
        Width -> nearest codes in each of its ranges; a single one where nothing is searched.
    """

    @cache
    def laid_out(axis: ChannelAxis, grid: WeightGrid) -> ScaledRows:
        return ScaledRows.of(weight, axis, grid)

    def laid_for(grid: WeightGrid) -> ScaledRows:
        plain = WeightGrid(granularity=grid.granularity, block_size=grid.block_size)
        return laid_out(layer.step_axis(grid), plain)

    def found(bits: int, grid: WeightGrid, most: int | None) -> QuantizedWeight:
        return find_steps(weight, bits, layer.step_axis(grid), grid, most=most, laid=laid_for(grid))

    def starts(bits: int, grid: WeightGrid) -> list[QuantizedWeight]:
        if grid.range_search != "hessian" or grid.format != "int":
            table = weight.size >= _LARGE_TABLE and weight.size <= LOOKED_AT * len(weight) and bits in _SHARES
            return [found(bits, grid, LOOKED_AT if table else None)]
        whole = found(bits, replace(grid, range_search="minmax"), None)
        if bits not in _SHARES:
            return [whole]
        # Rows with few weights far out are better off with much less than any share of their range.
        laid = laid_for(grid)
        far_out = laid.beyond(_FAR_OUT[bits] if laid.rows.shape[1] >= _LONG_ROW else 0.0)
        least = with_steps_of(whole, replace(grid, range_search="mse"), laid, far_out, most=LOOKED_AT)
        return [whole, *(drawn_in(whole, grid, share) for share in _SHARES[bits]), least]

    return {bits: starts(bits, grid_of(bits)) for bits in widths}
