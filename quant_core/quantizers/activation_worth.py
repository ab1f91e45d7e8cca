"""What an error in a value of an activation is worth: by how much it moves the network's outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.calibration.activation_range import BINS, ActivationRange
from quant_core.executor import Program
from quant_core.quantizers.chance import rademacher
from quant_core.quantizers.slopes import slopes_in

Floats = npt.NDArray[np.float64]

_PRIOR = 1.0
"""Values of mean worth that every bin is taken to hold beside its own."""


def activation_worth(
    program: Program,
    feeds: Iterable[Mapping[str, Tensor]],
    ranges: Mapping[str, ActivationRange],
    seed: int,
) -> dict[str, Floats]:
    """Estimate what a squared error of the values in each bin of a histogram counts at the outputs.

    To first order independent errors e of a tensor's elements change the outputs by `sum J_i^2 e_i^2` in squares, J
    their slopes, and `g_i^2` with `g = J^T s` and random signs s is an unbiased estimate of `J_i^2`: one run forwards
    and one back for all tensors. Every output counts relative to its energy. What no output reads, such as all but the
    largest values in front of a maximum, is worth nothing.

    Args:
        program: The float program.
        feeds: Batches of graph inputs.
        ranges: Tensor name -> its distribution.
        seed: Seed of the signs.

    Returns:
        Tensor name -> worth of each bin, `[BINS]`, of mean 1 over values; of tensors that outputs depend on.
    """
    chance = torch.Generator().manual_seed(seed)
    sums = {name: np.zeros(BINS) for name in ranges}
    counts = {name: np.zeros(BINS) for name in ranges}
    for batch in feeds:
        _, slopes = slopes_in(
            program, batch, ranges, program.outputs, lambda values: _total(values, program.outputs, chance)
        )
        for name, (value, slope) in slopes.items():
            bins = _bins(value, ranges[name])
            worth = slope.double().square().reshape(-1).cpu().numpy()
            sums[name] += np.bincount(bins, worth, BINS)
            counts[name] += np.bincount(bins, minlength=BINS)
    found = {}
    for name, total in sums.items():
        if counts[name].any() and np.isfinite(mean := total.sum() / counts[name].sum()) and mean > 0:
            found[name] = (total / mean + _PRIOR) / (counts[name] + _PRIOR)
    return found


def _total(values: Mapping[str, Tensor], outputs: Collection[str], chance: torch.Generator) -> Tensor:
    """Every element of every output with a random sign, as a share of the output's root of energy."""
    total = torch.zeros(())
    for value in (values[name] for name in outputs):
        if value.requires_grad:
            energy = value.detach().double().square().sum().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
            total = total + (value * rademacher(value, chance)).double().sum().cpu() / energy.cpu()
    return total


def _bins(value: Tensor, observed: ActivationRange) -> npt.NDArray[np.int64]:
    places = (value.detach().double() / observed.width).floor() - observed.origin
    return np.asarray(places.clamp(0, BINS - 1).long().reshape(-1).cpu().numpy())
