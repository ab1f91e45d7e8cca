"""What errors of activations do to the network's outputs: those of rounding, and those of clipping at any end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from quant_core.calibration.activation_range import ActivationRange
from quant_core.calibration.output_range import SHARES, OutputErrors
from quant_core.executor import Program
from quant_core.quantizers.chance import rademacher
from quant_core.quantizers.simulation.slopes import slopes_in

_DRAWS = 2
"""Draws of signs: by one alone, a sample that reaches far decides by chance."""


def range_errors(
    program: Program,
    feeds: Iterable[tuple[Mapping[str, Tensor], int]],
    ranges: Mapping[str, ActivationRange],
    seed: int,
) -> dict[str, OutputErrors]:
    """Measure what errors of tensors do to the outputs, to first order.

    Two runs forwards and back for all tensors: gradients of all elements of all outputs, each with a random sign.
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
    parts: dict[str, list[OutputErrors]] = defaultdict(list)
    energies: dict[str, float] = {}
    for batch, count in feeds:
        total = partial(_total, outputs=program.outputs, count=count, energies=energies, chance=chance)
        draws = [slopes_in(program, batch, ranges, program.outputs, total)[1] for _ in range(_DRAWS)]
        for name in draws[0]:
            parts[name].append(_of_batch([draw[name] for draw in draws], ranges[name], count))
    found = {name: _joined(each) for name, each in parts.items()}
    return {
        name: each for name, each in found.items() if np.isfinite(each.rounded).all() and each.rounded.any()
    }


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


def _of_batch(draws: Sequence[tuple[Tensor, Tensor]], observed: ActivationRange, count: int) -> OutputErrors:
    """Errors of the samples of one batch, by values and slopes of each draw of signs."""
    values = draws[0][0].detach()
    rows = count if values.dim() and values.shape[0] % count == 0 else 1
    values = values.reshape(rows, -1)
    slopes = [slope.reshape(rows, -1) for _, slope in draws]
    rounded = [torch.linalg.vector_norm(slope * (values != 0), dim=1).square() for slope in slopes]
    below = [_clipped(values, slope, min(observed.minimum, 0.0)) for slope in slopes]
    above = [_clipped(values, slope, max(observed.maximum, 0.0)) for slope in slopes]
    parts = (
        torch.stack(rounded).mean(0),
        torch.stack(below, 1),
        torch.stack(above, 1),
        values.amin(1),
        values.amax(1),
    )
    return OutputErrors(*(part.double().cpu().numpy() for part in parts))


def _joined(batches: Sequence[OutputErrors]) -> OutputErrors:
    return OutputErrors(
        np.concatenate([each.rounded for each in batches]),
        np.concatenate([each.below for each in batches]),
        np.concatenate([each.above for each in batches]),
        np.concatenate([each.lows for each in batches]),
        np.concatenate([each.highs for each in batches]),
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
