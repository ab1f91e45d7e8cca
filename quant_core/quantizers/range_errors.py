"""What errors of activations do to the network's outputs: those of rounding, and those of clipping at any end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.output_range import SHARES, OutputErrors
from quant_core.executor import Program
from quant_core.quantizers.chance import rademacher
from quant_core.quantizers.slopes import slopes_in

Floats = npt.NDArray[np.float64]


def range_errors(
    program: Program,
    feeds: Iterable[tuple[Mapping[str, Tensor], int]],
    ranges: Mapping[str, ActivationRange],
    seed: int,
) -> dict[str, OutputErrors]:
    """Measure what errors of tensors do to the outputs, to first order.

    One run forwards and one back for all tensors: gradients of all elements of all outputs, each with a random sign.
    Every output counts relative to its energy.

    Args:
        program: The float program.
        feeds: Batches of graph inputs, and how many samples each holds.
        ranges: Tensor name -> its distribution, over these samples and perhaps others.
        seed: Seed of the signs.

    Returns:
        Tensor name -> errors; of tensors that outputs depend on.
    """
    chance = torch.Generator().manual_seed(seed)
    parts: dict[str, list[tuple[Floats, ...]]] = defaultdict(list)
    energies: dict[str, float] = {}
    for batch, count in feeds:
        _, slopes = slopes_in(
            program,
            batch,
            ranges,
            program.outputs,
            partial(_total, outputs=program.outputs, count=count, energies=energies, chance=chance),
        )
        for name, (value, slope) in slopes.items():
            parts[name].append(_of_batch(value.detach(), slope, ranges[name], count))
    found = {name: OutputErrors(*map(np.concatenate, zip(*of, strict=True))) for name, of in parts.items()}
    return {name: of for name, of in found.items() if np.isfinite(of.rounded).all() and of.rounded.any()}


def _total(
    values: Mapping[str, Tensor],
    *,
    outputs: Collection[str],
    count: int,
    energies: dict[str, float],
    chance: torch.Generator,
) -> Tensor:
    """Every element of every output with a random sign, as a share of the root of the energy of the first samples."""
    total = torch.zeros(())
    for name in outputs:
        value = values[name]
        if value.requires_grad:
            if name not in energies:
                energy = float(value.detach().double().square().sum()) / count
                energies[name] = max(energy, float(np.finfo(np.float32).tiny)) ** 0.5
            total = total + (value * rademacher(value, chance)).double().sum().cpu() / energies[name]
    return total


def _of_batch(value: Tensor, slope: Tensor, observed: ActivationRange, count: int) -> tuple[Floats, ...]:
    """What `OutputErrors` holds, of the samples of one batch."""
    rows = count if value.dim() and value.shape[0] % count == 0 else 1
    value, slope = value.reshape(rows, -1), slope.reshape(rows, -1)
    rounded = torch.linalg.vector_norm(slope * (value != 0), dim=1).square()
    below = _clipped(value, slope, min(observed.minimum, 0.0))
    above = _clipped(value, slope, max(observed.maximum, 0.0))
    return tuple(
        part.double().cpu().numpy() for part in (rounded, below, above, value.amin(1), value.amax(1))
    )


def _clipped(value: Tensor, slope: Tensor, extreme: float) -> Tensor:
    """Sum of `g (end - x)` over the values beyond each end, `[rows, SHARES]`."""
    ends = torch.from_numpy(SHARES * extreme).to(value.device)
    if extreme == 0:
        return ends.expand(len(value), -1)
    first = float(ends[0])
    row, column = ((value > first) if extreme > 0 else (value < first)).nonzero(as_tuple=True)
    x, g = value[row, column].double(), slope[row, column].double()
    # Between two ends a value is clipped by the nearer one to zero and by all before it.
    last = torch.bucketize(x / extreme, torch.from_numpy(SHARES).to(x)) - 1
    places = row * len(ends) + last.clamp_min(0)
    sums = (
        torch.bincount(places, terms, len(value) * len(ends)).reshape(-1, len(ends)) for terms in (g, g * x)
    )
    slopes, products = (part.flip(1).cumsum(1).flip(1) for part in sums)
    return slopes * ends - products
