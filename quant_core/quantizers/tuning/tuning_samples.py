"""Samples for tuning: some to learn from, others to tell whether it helped, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from quant_core.calibration import Samples
from quant_core.ingest.layer import Layer
from quant_core.ingest.macs import affordable_samples

_MACS, _PASSES = 3e12, 4
"""Multiply-accumulates that tuning may take, each sample of an update four passes: float, rounded and backward, which
counts twice."""
_LARGEST_BATCH, _SMALLEST_BATCH = 32, 4
"""Samples of an update block by block."""
_MIXED_BATCH = 16
"""Most samples of an update of the whole network."""
_FEWEST_MIXED = 4
"""Fewer samples, half of them even, have no other of their kind to be mixed with."""
_FEWEST_UPDATES, _MOST_UPDATES = 150, 600
_CHECKED_SHARE = 8
"""One sample in so many tunes nothing and judges."""
_FEWEST_CHECKED = 8
"""Samples that judge where there are twice as many: what two or three of them say is chance."""


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
    affordable = affordable_samples(layers, _MACS, _PASSES * max(1, steps))
    return samples.batch or min(
        batch_size, samples.count, max(_SMALLEST_BATCH, min(_LARGEST_BATCH, affordable))
    )


def affordable_updates(layers: Sequence[Layer], samples: Samples, batch_size: int) -> tuple[int, int]:
    """Give the samples of an update and the number of updates, fewer of both where the network is large.

    Args:
        layers: Layers of the network.
        samples: What there is.
        batch_size: Most samples a run.

    Returns:
        Samples an update, 4 to 16, or what the graph demands; and updates, 150 to 600.
    """
    affordable = affordable_samples(layers, _MACS, _PASSES)
    size = min(_MIXED_BATCH, max(_SMALLEST_BATCH, affordable // _MOST_UPDATES))
    size = samples.batch or min(batch_size, samples.count, size)
    return size, min(_MOST_UPDATES, max(_FEWEST_UPDATES, affordable // size))


def mixed(batch: Samples, random: np.random.Generator) -> Samples:
    """Mix samples with each other, so that few give many inputs.

    Every second sample x becomes `x + l (x' - x)`, x' another of the batch, l up to 0.5 (Zhang et al., mixup,
    arXiv:1710.09412; as inputs of a teacher: Beyer et al., Knowledge distillation, arXiv:2106.05237).

    Args:
        batch: Samples.
        random: Which and how much.

    Returns:
        As many samples; the same where an input is not of floating point, and where the graph prescribes the batch.
    """
    others, much = random.permutation(batch.count), random.uniform(-0.5, 0.5, batch.count).clip(0)
    return _between(batch, others, much) if mixable(batch) else batch


def with_mixtures(samples: Samples, most: int, random: np.random.Generator) -> Samples:
    """Put mixtures in front of samples, of samples with even numbers at even places, of odd ones at odd places.

    Args:
        samples: Samples.
        most: How many mixtures there is room for.
        random: What is mixed and how much: 10 to 50 % of another sample.

    Returns:
        Up to as many mixtures, an even number, and all samples; samples alone where they cannot be mixed.
    """
    count = min(samples.count, most) // 2 * 2
    if count < _FEWEST_MIXED or not mixable(samples):
        return samples
    others = np.empty(count, np.int64)
    for parity in (0, 1):
        others[parity::2] = 2 * random.permutation(count // 2) + parity
    mixtures = _between(samples.first(count), others, random.uniform(0.1, 0.5, count))
    arrays = {name: np.concatenate([mixtures.inputs[name], array]) for name, array in samples.inputs.items()}
    return replace(samples, inputs=arrays, labels=None)


def mixable(samples: Samples) -> bool:
    """Tell whether samples can be mixed.

    Args:
        samples: Samples.

    Returns:
        True if all inputs are numbers of floating point and the graph prescribes no batch.
    """
    return samples.batch is None and all(array.dtype.kind == "f" for array in samples.inputs.values())


def _between(samples: Samples, others: np.ndarray, much: np.ndarray) -> Samples:
    arrays = {}
    for name, array in samples.inputs.items():
        factor = much.astype(array.dtype).reshape(-1, *[1] * (array.ndim - 1))
        arrays[name] = array + factor * (array[others] - array)
    return replace(samples, inputs=arrays)


def share(samples: Samples) -> tuple[Samples, Samples] | None:
    """Take samples to check with apart from those to tune with: one in eight, of few samples eight or half.

    Args:
        samples: All samples.

    Returns:
        Samples to tune with, and samples to check with; None if there are too few to do both.
    """
    groups = samples.count // samples.unit
    if groups <= 1:
        return None
    every = max(2, min(_CHECKED_SHARE, groups // _FEWEST_CHECKED))
    checked = np.arange(groups) % every == every - 1
    return samples.units(np.flatnonzero(~checked)), samples.units(np.flatnonzero(checked))


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
    groups = min(size, samples.count) // samples.unit
    waiting: list[int] = []
    for _ in range(steps):
        while len(waiting) < groups:
            waiting += random.permutation(samples.count // samples.unit).tolist()
        picked, waiting = waiting[:groups], waiting[groups:]
        yield samples.units(np.array(picked))
