"""Few samples that stand for many: those that reach furthest somewhere in the network, and others drawn evenly."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import torch

from quant_core.calibration.observe import Evaluates
from quant_core.calibration.samples import Samples

Integers = npt.NDArray[np.int64]


def far_samples(
    program: Evaluates, samples: Samples, tensors: Collection[str], count: int, *, batch_size: int
) -> tuple[Samples, Integers]:
    """Pick samples so that those are among them that decide where ranges should end.

    What a range cuts off is cut off in the few samples that reach furthest, which an even choice leaves out. Half of
    the samples are therefore those that come first, or next, in the smallest or largest value of some tensor. They
    stand for themselves; the others are drawn evenly and stand for all that are left.

    Args:
        program: The float model.
        samples: Where to pick from, N; all of them are run.
        tensors: Names of float tensors.
        count: How many to pick at most.
        batch_size: Samples a run.

    Returns:
        The samples, in order, and how many each stands for: integers that sum up to N.
    """
    units = samples.count // samples.unit
    wanted = max(1, count // samples.unit)
    if wanted >= units:
        return samples, np.ones(samples.count, np.int64)
    reaches = _reaches(program, samples, tensors, batch_size).reshape(units, samples.unit, -1).max(1)
    ranks = (-reaches).argsort(0, kind="stable").argsort(0, kind="stable")
    ranks = np.where(reaches > 0, ranks, units)
    best = ranks.min(1)
    far = np.sort(np.lexsort(((best[:, None] != ranks).sum(1), best))[: wanted // 2])
    others = np.setdiff1d(np.arange(units), far)
    bounds = np.arange(wanted - far.size + 1) * others.size // (wanted - far.size)
    times = np.ones(units, np.int64)
    times[others[bounds[:-1]]] = np.diff(bounds)
    places = np.sort(np.concatenate([far, others[bounds[:-1]]]))
    return samples.units(places), times[places].repeat(samples.unit)


def _reaches(
    program: Evaluates, samples: Samples, tensors: Collection[str], batch_size: int
) -> npt.NDArray[np.float64]:
    """How far each sample reaches below and above 0 in each tensor, `[N, 2 tensors]`."""
    found = []
    for batch in samples.batches(batch_size):
        feeds = batch.feeds(program.device, fast=True)
        computed = [name for name in tensors if name not in feeds]
        with torch.no_grad():
            values = feeds | (program.evaluate(feeds, outputs=computed) if computed else {})
        found.append(np.concatenate([_of_batch(values[name], batch.count) for name in tensors], axis=1))
    return np.concatenate(found)


def _of_batch(value: torch.Tensor, count: int) -> npt.NDArray[np.float64]:
    rows = count if value.dim() and value.shape[0] % count == 0 else 1
    low, high = torch.aminmax(value.reshape(rows, -1), dim=1)
    ends = torch.stack([-low, high], 1).clamp_min(0).double().cpu().numpy()
    return np.broadcast_to(ends, (count, 2))
