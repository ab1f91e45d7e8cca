"""Sources of chance that do not depend on what else is drawn, and what is more than chance."""

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


def rademacher(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw independent signs.

    They are drawn on the CPU, so that the same seed gives the same signs on every device.

    Args:
        like: Gives shape, dtype and device.
        generator: Source of randomness, on the CPU.

    Returns:
        -1 and 1 with equal probability.
    """
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return signs.to(device=like.device, dtype=like.dtype).mul_(2).sub_(1)


def exceeds_chance(values: torch.Tensor, errors: float) -> bool:
    """Tell whether the mean of independent values lies above 0 by more than chance.

    Args:
        values: One a sample, `[samples]`.
        errors: By how many of its standard errors, `s / sqrt(n)`, the mean must exceed 0.

    Returns:
        True if it does; of a single value nobody can tell.
    """
    return len(values) > 1 and bool(values.mean() > errors * values.std() / len(values) ** 0.5)
