"""Sources of chance that do not depend on what else is drawn."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def chance_of(seed: int, name: str, *more: int) -> torch.Generator:
    """Give each layer draws of its own, so that it does not matter which others are rounded or were already.

    Args:
        seed: Seed of the job.
        name: Name of the layer.
        *more: What else sets draws apart, such as a width.

    Returns:
        A generator on the CPU.
    """
    (state,) = np.random.SeedSequence([seed, zlib.crc32(name.encode()), *more]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))
