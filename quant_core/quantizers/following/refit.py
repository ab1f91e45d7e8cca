"""What a layer should multiply its inputs with once these are no longer those of the float network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from quant_core.quantizers.chance import exceeds_chance
from quant_core.quantizers.moments.input_moments import InputMoments, Moments
from quant_core.quantizers.moments.principal_moments import few_columns, principal_moments

_FIRST, _STEP, _SMALLEST, _LARGEST = 0.3, 10.0, 2e-3, 50.0
"""Ridges l: the first that is tried, the factor to the next, and between what they lie."""
_JUDGED_OUTPUTS = 64
"""About how many of a layer's outputs judge the ridges."""
_ERRORS = 1.0
"""By how many of its standard errors over samples the error must fall on those that did not fit."""
_BROKEN = 1e-3
"""Ridge that is added where the columns are rank-deficient beyond rounding error."""
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of a layer's input in the rounded network, and what its output lacks there.

    Attributes:
        inputs: `[groups, columns, inputs]`.
        lacking: Output of the float network less the float weight times `inputs`, `[groups, columns, outputs]`.
        sample: The sample that each column comes from, `[columns]`.
        samples: How many there are.
    """

    inputs: Tensor
    lacking: Tensor
    sample: Tensor
    samples: int


@dataclass(frozen=True, eq=False)
class Refit:
    """A change of one layer's weight and bias.

    Attributes:
        weight: What is added to the weight, `[groups, outputs, inputs]`; None where nothing is.
        lacking: Mean of what the output lacks, `[groups, outputs]`; 0 where no bias makes up for it.
        moments: Moments of the inputs.
        error: Share of the squared error that is left on samples that did not fit.
    """

    weight: Tensor | None
    lacking: Tensor
    moments: Moments
    error: float


def refit(columns: Columns, *, with_bias: bool) -> Refit:
    """Fit the float network's output by what the rounded network gives a layer, as far as other samples confirm it.

    With columns x of the rounded network, y the float network's output and W the float weight, D and d minimise

        `sum |y - (W + D) x - d|^2 + l n v |D|^2`,

    n columns, v the mean variance of an input. Half of the samples fit at several l, in steps of ten from 0.3 as long
    as that helps, and the other half judges; they change places, and the best l fits all. Where the error does not fall
    by more than its standard error over samples D is 0; where d alone does not help either, so is d (least squares on
    rounded inputs: Frantar et al., Optimal brain compression, arXiv:2208.11580, and Li et al., GPTAQ, arXiv:2504.02692;
    here with a ridge, and confirmed on other samples).

    Args:
        columns: Columns of the layer.
        with_bias: Whether the layer has a bias that may change.

    Returns:
        The change.
    """
    step = -(-columns.lacking.shape[2] // _JUDGED_OUTPUTS)
    halves = [_Part.of(columns, columns.sample % 2 == parity, with_bias, step, ()) for parity in (0, 1)]
    whole = _Part.of(columns, None, with_bias, 1, halves)
    moments = whole.moments(columns.samples)
    nothing = torch.zeros_like(whole.lacking_mean[:, 0])
    if any(len(half.sample) < 2 for half in halves):
        return Refit(None, nothing, moments, 1.0)

    def left(ridge: float | None) -> Tensor:
        """Squared errors by sample, each half's by what the other has fitted."""
        found = columns.inputs.new_zeros(columns.samples)
        for fitting, judging in (halves, halves[::-1]):
            found.index_add_(0, judging.sample, judging.errors(fitting, ridge))
        return found

    plain = columns.inputs.new_zeros(columns.samples)
    plain.index_add_(0, columns.sample, columns.lacking[..., ::step].square().sum((0, 2)))
    shifted = left(None) if with_bias else plain
    best, ridge = shifted, None
    for start, factor in ((_FIRST, _STEP), (_FIRST / _STEP, 1 / _STEP)):
        at = start
        while _SMALLEST <= at <= _LARGEST and float((errors := left(at)).sum()) < float(best.sum()):
            best, ridge, at = errors, at, at * factor
        if ridge is not None and ridge > _FIRST:
            break
    total = max(float(plain.sum()), _TINY)
    if ridge is not None and exceeds_chance(shifted - best, _ERRORS):
        return Refit(whole.fit(ridge), whole.lacking_mean[:, 0], moments, float(best.sum()) / total)
    if with_bias and exceeds_chance(plain - shifted, _ERRORS):
        return Refit(None, whole.lacking_mean[:, 0], moments, float(shifted.sum()) / total)
    return Refit(None, nothing, moments, 1.0)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some columns, without their mean where a bias makes up for it.

    Attributes:
        sample: The sample of each.
        inputs: `[groups, columns, inputs]`.
        lacking: `[groups, columns, outputs]`.
        input_mean: `[groups, 1, inputs]`; 0 without a bias.
        lacking_mean: `[groups, 1, outputs]`; 0 without a bias.
        gram: Products of inputs, or of columns where these are fewer.
        cross: Products of inputs with what is lacking, or the latter.
    """

    sample: Tensor
    inputs: Tensor
    lacking: Tensor
    input_mean: Tensor
    lacking_mean: Tensor
    gram: Tensor
    cross: Tensor

    @classmethod
    def of(
        cls, columns: Columns, picked: Tensor | None, with_bias: bool, step: int, parts: Sequence[Self]
    ) -> Self:
        inputs, lacking, sample = columns.inputs, columns.lacking[..., ::step], columns.sample
        if picked is not None:
            inputs, lacking, sample = inputs[:, picked], lacking[:, picked], sample[picked]
        input_mean, lacking_mean = (
            values.mean(1, keepdim=True) if with_bias and len(sample) else torch.zeros_like(values[:, :1])
            for values in (inputs, lacking)
        )
        inputs, lacking = inputs - input_mean, lacking - lacking_mean
        turned = inputs.transpose(1, 2)
        if inputs.shape[1] < inputs.shape[2]:
            gram, cross = inputs @ turned, lacking
        else:
            summed = _summed(parts, input_mean)
            gram = turned @ inputs if summed is None else summed
            cross = turned @ lacking
        return cls(sample, inputs, lacking, input_mean, lacking_mean, gram, cross)

    def fit(self, ridge: float) -> Tensor:
        """D by ridge regression, `[groups, outputs, inputs]`."""
        columns, inputs = self.inputs.shape[1:]
        variance = self.gram.diagonal(dim1=1, dim2=2).sum(1)[:, None] / inputs
        matrix = self.gram.clone()
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal += ridge * variance + _TINY
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if bool(failed.any()):  # rank-deficient beyond rounding error
            diagonal += _BROKEN * variance + _TINY
            factor = torch.linalg.cholesky(matrix)
        solved = torch.cholesky_solve(self.cross, factor).transpose(1, 2)
        return solved @ self.inputs if columns < inputs else solved

    def errors(self, fitting: Self, ridge: float | None) -> Tensor:
        """Squared error of every column by what others have fitted; only by their mean without a ridge."""
        shift = self.lacking_mean - fitting.lacking_mean
        if ridge is None:
            return (self.lacking + shift).square_().sum((0, 2))
        weight = fitting.fit(ridge).transpose(1, 2)
        shift = shift - (self.input_mean - fitting.input_mean) @ weight
        return (self.lacking + shift).baddbmm_(self.inputs, weight, alpha=-1).square_().sum((0, 2))

    def moments(self, samples: int) -> Moments:
        """Moments of the columns; their principal directions where they are few."""
        groups, columns, inputs = self.inputs.shape
        if few_columns(groups, inputs, columns, samples):
            return principal_moments(self.inputs[0] + self.input_mean[0], samples)
        gram = self.gram if columns >= inputs else self.inputs.transpose(1, 2) @ self.inputs
        second = gram / columns + self.input_mean.transpose(1, 2) @ self.input_mean
        return InputMoments(second, self.inputs.mean(1) + self.input_mean[:, 0], columns, samples)


def _summed(parts: Sequence[_Part], mean: Tensor) -> Tensor | None:
    """Products of the inputs of all parts around their common mean."""
    if not parts:
        return None
    total = torch.zeros(())
    for part in parts:
        count, inputs = part.inputs.shape[1:]
        if count < inputs:
            return None
        apart = part.input_mean - mean
        total = total + torch.baddbmm(part.gram, apart.transpose(1, 2), apart, alpha=count)
    return total
