"""Samples for tuning: some to learn from, others to tell whether it helped, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from quant_core.calibration import Samples
from quant_core.ingest.layer import Layer

_MACS = 3e12
_PASSES = 4
_LARGEST_BATCH, _SMALLEST_BATCH = 32, 4
_CHECKED_SHARE = 8
_FEWEST_CHECKED = 2


def affordable_batch(layers: Sequence[Layer], samples: Samples, steps: int, batch_size: int) -> int:
    """Give the samples of a step: few where the network is large, so that all steps take bounded arithmetic.

    Args:
        layers: Layers of the network.
        samples: What there is.
        steps: Number of steps.
        batch_size: Most samples a run.

    Returns:
        Samples a step; what the graph demands, if it does.
    """
    macs = max(1, sum(layer.macs for layer in layers))
    affordable = int(_MACS / (_PASSES * macs * max(1, steps)))
    return samples.batch or min(
        batch_size, samples.count, max(_SMALLEST_BATCH, min(_LARGEST_BATCH, affordable))
    )


def share(samples: Samples) -> tuple[Samples, Samples] | None:
    """Take samples to check with apart from those to tune with: one in eight, of few samples at least two.

    Args:
        samples: All samples.

    Returns:
        Samples to tune with, and samples to check with; None if there are too few to do both.
    """
    unit = samples.batch or 1
    groups = samples.count // unit
    if groups <= 1:
        return None
    every = max(2, min(_CHECKED_SHARE, groups // _FEWEST_CHECKED))
    checked = np.repeat(np.arange(groups) % every == every - 1, unit)
    return samples.take(np.flatnonzero(~checked)), samples.take(np.flatnonzero(checked))


def random_batches(samples: Samples, size: int, steps: int, seed: int) -> Iterator[Samples]:
    """Give every sample once in random order, then again in another; a fixed batch stays together.

    Args:
        samples: The samples.
        size: Samples a batch.
        steps: Batches.
        seed: Seed of the order.

    Yields:
        Batches of that size, or of all samples where there are fewer.
    """
    random = np.random.default_rng(seed)
    unit = samples.batch or 1
    groups = min(size, samples.count) // unit
    waiting: list[int] = []
    for _ in range(steps):
        while len(waiting) < groups:
            waiting += random.permutation(samples.count // unit).tolist()
        picked, waiting = waiting[:groups], waiting[groups:]
        yield samples.take((np.array(picked)[:, None] * unit + np.arange(unit)).reshape(-1))


def feeds(batch: Samples, device: str) -> dict[str, Tensor]:
    """Give a batch as tensors.

    Args:
        batch: Samples.
        device: Where to.

    Returns:
        Graph input name -> tensor.
    """
    return {
        name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.inputs.items()
    }
