"""How much the outputs move with each column of a table: what takes the place of input moments for GPTQ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.executor import Program
from quant_core.ingest.layer import Layer
from quant_core.quantizers.moments.input_moments import InputMoments
from quant_core.quantizers.simulation.slopes import random_slopes

_MOST_SAMPLES = 64
_MOST_COLUMNS, _MOST_WEIGHTS = 2048, 1 << 26
"""Bounds on tables that GPTQ rounds: H is columns x columns, and every row is swept."""
_FEWEST_ROWS = 16
"""Fewer rows take next to no bytes."""
_PULLED = 0.4
"""Share of the off-diagonal curvature that is left out: every row has one of its own, and shares only some of it."""


def is_table(layer: Layer) -> bool:
    """Tell whether a layer is a table that rows are looked up in and nothing else.

    Args:
        layer: Any layer.

    Returns:
        True for the weight of Gather nodes, with a scale for each of at least 16 rows, of at most 2,048 columns and 67
        million weights.
    """
    return (
        {use.op for use in layer.uses} == {"Gather"}
        and layer.axis == 0
        and len(layer.shape) == 2
        and layer.shape[0] >= _FEWEST_ROWS
        and 1 < layer.shape[1] <= _MOST_COLUMNS
        and layer.parameters <= _MOST_WEIGHTS
    )


def table_moments(
    program: Program,
    layers: Sequence[Layer],
    samples: Samples,
    *,
    batch_size: int,
    seed: int,
) -> dict[str, InputMoments]:
    """Average how the outputs move with the columns of each table.

    Rounding moves row r by an error e of the size of its step, and the outputs y by `J e` wherever the row is read, so
    that in the mean their squared change is `e^T G e`, `G = E[m^2 J^T J]` with m the largest magnitude of the row that
    is read, in place of its step. `J^T J` is the mean of `g g^T` over outputs with random signs, g their gradient. All
    rows share G, so that those which no sample reads are rounded as well as the others. Its off-diagonal part is pulled
    in by 0.4.

    Args:
        program: The float program.
        layers: Layers for which `is_table` is true.
        samples: What to run; at most 64 samples are used.
        batch_size: Samples a run, which keeps what their gradients need.
        seed: Seed of the signs.

    Returns:
        Layer name -> G as second moments of inputs, with a mean of 0; tables are left out that no output depends on
        smoothly.
    """
    if not layers:
        return {}
    samples = samples.first(_MOST_SAMPLES)
    chance = torch.Generator().manual_seed(seed)
    sums = {layer.name: torch.zeros(layer.shape[1], layer.shape[1]) for layer in layers}
    counts = dict.fromkeys(sums, 0)
    for batch in samples.batches(batch_size):
        feeds = batch.feeds(program.device)
        slopes = _slopes(program, feeds, [use.output for layer in layers for use in layer.uses], chance)
        for layer in layers:
            for rows in (slopes[use.output] for use in layer.uses if use.output in slopes):
                read = rows[(rows != 0).any(1)]
                sums[layer.name] += (read.T @ read).cpu()
                counts[layer.name] += len(read)
    found = {}
    for name, total in sums.items():
        diagonal = total.diagonal()
        if not (bool(torch.isfinite(total).all()) and bool((diagonal > 0).any())):
            continue
        second = (1 - _PULLED) * total
        second.diagonal().copy_(diagonal)
        second /= counts[name]
        found[name] = InputMoments(second[None], torch.zeros(1, len(second)), counts[name], samples.count)
    return found


def _slopes(
    program: Program, feeds: dict[str, Tensor], names: Sequence[str], chance: torch.Generator
) -> dict[str, Tensor]:
    """Gradient of the outputs with random signs in each of these tensors, times its rows' largest magnitudes."""
    _, slopes = random_slopes(program, feeds, names, chance)
    return {
        name: (slope * value.detach().abs().amax(-1, keepdim=True)).reshape(-1, slope.shape[-1]).float()
        for name, (value, slope) in slopes.items()
    }
