"""The values nearest to some numbers that paths of a trellis lead through, found by Viterbi's search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from quant_core.codes import QuantizedWeight
from quant_core.codes.trellis import stride_of

_STATES = 8
_RESIDUES = 4
_CHUNK = 2048
"""Paths that are searched side by side."""
_COST_BITS = 28
"""Bits that hold what a whole path may cost."""

_TINY = np.float32(1e-28)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PathGrid:
    """Where columns of a layer's outputs are rounded to, under several grids at once.

    Attributes:
        steps: Half steps, `[grids, outputs]`.
        halves: `2^b` of each output, `[outputs]`.
    """

    steps: Floats
    halves: Floats

    def nearest(self, column: Floats, k: int, out: Floats) -> Floats:  # noqa: ARG002
        """Round one input of all outputs, as `Feedback.sweep` asks for it.

        Args:
            column: `[1, grids, outputs]`.
            k: The input.
            out: Where its values in half steps are written.

        Returns:
            The half steps.
        """
        out[0] = self.values(column[0] / self.steps)
        return self.steps[None]

    def values(self, wanted: Floats) -> Floats:
        """Round columns to values that paths lead through.

        Args:
            wanted: Numbers in half steps, `[columns, outputs]`; a column for each grid, or any number for one grid.

        Returns:
            Values of b + 1 bits in the same shape; the sum of `(steps (value - wanted))^2` over each path is least.
        """
        columns, outputs = wanted.shape
        each = max(len(self.steps), _CHUNK // stride_of(outputs))
        found = np.empty_like(wanted)
        for start in range(0, columns, each):
            some = slice(start, start + each)
            laid = _in_paths(wanted[some], 0.0)
            shape = laid.shape
            parts = (
                np.broadcast_to(part, shape).reshape(len(laid), -1)
                for part in (laid, self._prices, self._limits)
            )
            values = best_paths(*parts).reshape(shape).transpose(1, 0, 2)
            found[some] = values.reshape(shape[1], -1)[:, :outputs]
        return found

    @cached_property
    def _prices(self) -> Floats:
        return _in_paths(np.square(self.steps), 0.0)

    @cached_property
    def _limits(self) -> Floats:
        return _in_paths(self.halves[None], _RESIDUES)


def halves_of(weight: QuantizedWeight, outputs: int) -> Floats:
    """Give how far the values of each output reach.

    Args:
        weight: Codes of b bits, or of several.
        outputs: Number of outputs.

    Returns:
        `2^b`, `[outputs]`.
    """
    bits = weight.bits
    if weight.narrow is not None:
        return np.float32(2) ** np.where(weight.narrow.channels, weight.narrow.bits, bits).astype(np.float32)
    return np.full(outputs, 2.0**bits, dtype=np.float32)


def _in_paths(laid: Floats, padding: float) -> Floats:
    """Columns `[columns, outputs]` as `[codes, columns, paths]`."""
    columns, outputs = laid.shape
    stride = stride_of(outputs)
    if lacking := -outputs % stride:
        laid = np.pad(laid, ((0, 0), (0, lacking)), constant_values=padding)
    return laid.reshape(columns, -1, stride).transpose(1, 0, 2)


def best_paths(wanted: Floats, prices: Floats, half: Floats) -> Floats:
    """Find the values nearest to some numbers along paths (Viterbi, Error bounds for convolutional codes, 1967).

    Costs are counted in integers and stand in front of the bits that lead there, one number for both: what is least
    brings its path along.

    Args:
        wanted: Numbers in half steps, code by code of each path, `[codes, paths]`; 32 codes at most.
        prices: What a squared half step costs there, `[codes, paths]`.
        half: `2^b`, `[codes, paths]`.

    Returns:
        Values of b + 1 bits, `[codes, paths]`.
    """
    length, paths = wanted.shape
    residues = np.arange(_RESIDUES, dtype=np.float32)[:, None]
    values = wanted[:, None] - residues
    values *= np.float32(1 / _RESIDUES)
    np.rint(values, out=values)
    values *= np.float32(_RESIDUES)
    values += residues
    np.maximum(values, residues - half[:, None], out=values)
    np.minimum(values, half[:, None] - _RESIDUES + residues, out=values)
    lost = values - wanted[:, None]
    lost *= lost
    lost *= prices[:, None]
    most = lost.max(1).sum(0)
    lost *= np.float32(1 << _COST_BITS) / np.maximum(most, _TINY)
    whole = lost.astype(np.int64)
    whole <<= length
    # Two states, which differ in the oldest bit, lead to the two that differ in the last: no index is looked up.
    choices = whole[:, _RESIDUE]
    choices[:, :, :, 1] |= (np.int64(1) << np.arange(length))[:, None, None, None]
    cost = np.full((_STATES, paths), np.int64(1) << (_COST_BITS + 1 + length))
    cost[0] = 0
    before, behind = cost.reshape(2, -1, 1, paths), cost.reshape(-1, 2, paths)
    total = np.empty((2, _STATES // 2, 2, paths), dtype=np.int64)
    one, other = total
    for here in choices:
        np.add(before, here, out=total)
        np.minimum(one, other, out=behind)
    word = cost.min(0)
    word &= (np.int64(1) << length) - 1
    # u_i, u_{i-2} and u_{i-3} of every step i, 0 before the first.
    last, second, third = ((word << delay >> np.arange(length)[:, None]) & 1 for delay in (0, 2, 3))
    residue = 2 * (last ^ second ^ third) + second
    return np.take_along_axis(values, residue[:, None], axis=1)[:, 0]


def _residues() -> npt.NDArray[np.intp]:
    """Residue of a value by the bit that leaves the state, `u_{i-3}`, its other two, and the last bit of the code."""
    oldest, second, first, last = np.ogrid[:2, :2, :2, :2]
    found = np.broadcast_to(2 * (last ^ second ^ oldest) + second + 0 * first, (2, 2, 2, 2))
    return found.reshape(2, _STATES // 2, 2).astype(np.intp)


_RESIDUE = _residues()
