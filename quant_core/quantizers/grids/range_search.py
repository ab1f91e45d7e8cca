"""The steps and zero points under which weights lose least."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant_core.quantizers.grids.elements import Elements
from quant_core.quantizers.grids.stored_scales import StoredScales

_COARSE_STEPS, _FINE_STEPS = 20, 8
"""Shares of the whole range that are tried, and others between the neighbours of the best of them."""
_REFITS = 2
"""How often steps are fitted to the codes that they give."""
_ENDS = (0.95, 0.9, 0.8, 0.7, 0.55, 0.4)
"""Factors by which one end is drawn in alone."""
_TINY = torch.finfo(torch.float32).tiny


@dataclass
class Best:
    """The best step found so far for every row.

    Attributes:
        rows: Weights, `[scales, weights]`.
        elements: What their grid holds.
        scales: Which steps can be stored.
        scale: `[scales]`.
        zero_point: `[scales]`, in codes.
        error: `[scales]`, summed squared error.
        counts: How many weights each one stands for, `[weights]`; by default 1.
    """

    rows: Tensor
    elements: Elements
    scales: StoredScales
    scale: Tensor
    zero_point: Tensor
    error: Tensor
    counts: Tensor | None = None

    def consider(self, scale: Tensor, zero_point: Tensor | None = None) -> None:
        """Take a step, and a zero point, for those rows where the squared error falls by it.

        Args:
            scale: `[scales]`.
            zero_point: `[scales]`; by default 0.
        """
        scale = self.scales.stored(scale.clamp_min(_TINY))
        column = scale[:, None]
        values = self.rounded(column, zero_point)
        error = self.total(values.mul_(column).sub_(self.rows).square_())
        better = error < self.error
        self.scale = torch.where(better, scale, self.scale)
        self.error = torch.where(better, error, self.error)
        if zero_point is not None:
            self.zero_point = torch.where(better, zero_point, self.zero_point)

    def total(self, values: Tensor) -> Tensor:
        """Sum over the weights of each scale.

        Args:
            values: `[scales, weights]`.

        Returns:
            `[scales]`.
        """
        return values.sum(1) if self.counts is None else values @ self.counts

    def refit(self, codes: Tensor) -> Tensor:
        """Give the step of least squared error for given codes, `<w, q> / <q, q>`.

        Args:
            codes: Values in units of the step.

        Returns:
            `[scales]`; where all codes are 0 the step there is.
        """
        norm = self.total(codes.square())
        return torch.where(norm > 0, self.total(self.rows * codes) / norm.clamp_min(1), self.scale)

    def rounded(self, column: Tensor, zero_point: Tensor | None) -> Tensor:
        """Round all rows.

        Args:
            column: Steps, `[scales, 1]`.
            zero_point: `[scales]`, or None.

        Returns:
            Values in units of the step, a new tensor.
        """
        if zero_point is None:
            return self.elements.nearest(self.rows / column)
        shift = zero_point[:, None]
        return self.elements.nearest(self.rows / column + shift).sub_(shift)


def search_symmetric(
    rows: Tensor, elements: Elements, scales: StoredScales, bits: int, counts: Tensor | None = None
) -> Best:
    """Search the steps of least squared error, `min over s of sum_k (w_k - s Q(w_k / s))^2` for each row.

    Shrunk ranges from coarse to fine, finished by least-squares refits `s = <w, q> / <q, q>`, each kept only where it
    lowers the error. Where counts are given, for a guess that others improve on, half as many are tried.

    Args:
        rows: Weights, `[scales, weights]`.
        elements: What their grid holds.
        scales: Which steps can be stored.
        bits: Bits of a code.
        counts: How many weights each one stands for, `[weights]`; by default 1.

    Returns:
        The best steps; zero points are 0.
    """
    full = _full(rows, elements, scales)
    best = _start(rows, elements, scales, full, counts)
    # The useful range shrinks with the bits: two-bit grids clip most of the tail, eight-bit ones hardly any.
    step = (1 - _floor(bits)) / _COARSE_STEPS
    if counts is None:
        coarse = [1 - i * step for i in range(_COARSE_STEPS)]
        fine = [step * (i / (_FINE_STEPS + 1) * 2 - 1) for i in range(1, _FINE_STEPS + 1)]
    else:
        half, quarter = _COARSE_STEPS // 2, _FINE_STEPS // 2
        ratio = (1 - (_COARSE_STEPS - 1) * step) ** (1 / (half - 1))
        coarse = [ratio**i for i in range(half)]
        fine = [ratio ** (i / (quarter + 1) * 2 - 1) - 1 for i in range(1, quarter + 1)]
    for share in (*coarse, *scales.beyond):
        best.consider(full * share)
    centre = best.scale
    for share in fine:
        best.consider(centre + share * (full if counts is None else centre))
    for _ in range(_REFITS if counts is None else 1):
        codes = elements.nearest(rows / best.scale[:, None])
        best.consider(best.refit(codes))
    return best


def search_asymmetric(
    rows: Tensor, elements: Elements, scales: StoredScales, bits: int, counts: Tensor | None = None
) -> Best:
    """Search steps and zero points of least squared error; the symmetric ones are among those tried.

    Both ends of the range, which always holds 0, are drawn in together, then each alone.

    Args:
        rows: Weights, `[scales, weights]`.
        elements: Integers.
        scales: Which steps can be stored.
        bits: Bits of a code.
        counts: How many weights each one stands for, `[weights]`; by default 1.

    Returns:
        The best steps and zero points.
    """
    low, high = rows.amin(1).clamp_max(0), rows.amax(1).clamp_min(0)
    best = search_symmetric(rows, elements, scales, bits, counts)
    left, right = torch.ones_like(low), torch.ones_like(high)

    def consider(left_share: Tensor, right_share: Tensor) -> None:
        nonlocal left, right
        before = best.error
        best.consider(*_from_range(low * left_share, high * right_share, elements, scales))
        better = best.error < before
        left, right = torch.where(better, left_share, left), torch.where(better, right_share, right)

    step = (1 - _floor(bits)) / _COARSE_STEPS
    for i in range(_COARSE_STEPS):
        share = torch.full_like(low, 1 - i * step)
        consider(share, share)
    for end in _ENDS:
        consider(left * end, right)
        consider(left, right * end)
    for _ in range(_REFITS):
        codes = best.rounded(best.scale[:, None], best.zero_point)
        best.consider(best.refit(codes), best.zero_point)
    return best


def range_of(
    rows: Tensor, elements: Elements, scales: StoredScales, *, symmetric: bool, share: float = 1.0
) -> Best:
    """Give the steps that a range of the weights asks for, by minimum and maximum or by quantiles.

    Args:
        rows: Weights, `[scales, weights]`.
        elements: What their grid holds.
        scales: Which steps can be stored.
        symmetric: Whether zero points are 0.
        share: Share of the weights on either side that is not clipped; 1 clips nothing.

    Returns:
        The steps and zero points.
    """
    if share < 1:
        rows = rows.clamp(rows.quantile(1 - share, 1, keepdim=True), rows.quantile(share, 1, keepdim=True))
    full = _full(rows, elements, scales)
    best = _start(rows, elements, scales, full)
    if symmetric:
        best.consider(full)
    else:
        best.consider(*_from_range(rows.amin(1).clamp_max(0), rows.amax(1).clamp_min(0), elements, scales))
    return best


def _full(rows: Tensor, elements: Elements, scales: StoredScales) -> Tensor:
    high, low = scales.reach(elements.high), -scales.reach(-elements.low)
    return torch.maximum(rows.amax(1) / high, rows.amin(1) / low).clamp_min(0)


def _start(
    rows: Tensor, elements: Elements, scales: StoredScales, full: Tensor, counts: Tensor | None = None
) -> Best:
    return Best(
        rows,
        elements,
        scales,
        full.clamp_min(_TINY),
        torch.zeros_like(full),
        torch.full_like(full, torch.inf),
        counts,
    )


def _from_range(low: Tensor, high: Tensor, elements: Elements, scales: StoredScales) -> tuple[Tensor, Tensor]:
    scale = scales.stored(((high - low) / (elements.high - elements.low)).clamp_min(_TINY))
    return scale, torch.round(elements.low - low / scale).clamp_(elements.low, elements.high)


def _floor(bits: int) -> float:
    return {2: 0.1, 3: 0.2, 4: 0.35}.get(bits, 0.5)
