"""Keep some samples back, so that what decides and what verifies are different."""

from __future__ import annotations

import numpy as np

from quant_core.calibration.samples import Samples
from quant_core.errors import SamplesError


def split_samples(samples: Samples, held_back: float, seed: int) -> tuple[Samples, Samples]:
    """Split samples at random.

    Args:
        samples: All samples.
        held_back: Share to keep back, between 0 and 1.
        seed: Seed of the choice.

    Returns:
        Samples to calibrate with, and samples kept back; each at least one (or one whole batch where the graph
        demands a number), each in the file's order.

    Raises:
        SamplesError: If there are too few samples for both parts.
    """
    # Where the graph demands a number of samples a run, both parts must consist of whole runs.
    groups = samples.count // samples.unit
    if groups < 2:
        given = "1 sample" if samples.count == 1 else f"{samples.count} samples"
        raise SamplesError(
            f"{given} cannot be split into some to calibrate with and some kept back.",
            remedy=f"Give at least {2 * samples.unit} samples.",
            where="data",
        )
    kept = min(max(round(groups * held_back), 1), groups - 1)
    order = np.random.default_rng(seed).permutation(groups)
    return samples.units(np.sort(order[kept:])), samples.units(np.sort(order[:kept]))
