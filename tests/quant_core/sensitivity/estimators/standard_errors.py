"""The check that random estimators share: they err by as much as their standard errors say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

POPULATION = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
"""What samples are drawn from, for nets of five inputs."""


def error_over_stderr(
    exact: Any, estimate: Callable[[torch.Tensor, int], tuple[Any, Any]], *, drawn: int, draws: int = 40
) -> Any:
    """Give the root mean square of `(estimate - exact) / stderr` over draws of samples; 1 where it is honest.

    Args:
        exact: What the population gives, by layer.
        estimate: Samples and a seed -> the estimates and their standard errors, by layer.
        drawn: Samples in a draw.
        draws: How many.
    """
    errors = []
    for seed in range(draws):
        rows = torch.randint(0, len(POPULATION), (drawn,), generator=torch.Generator().manual_seed(seed))
        found, stderr = estimate(POPULATION[rows], seed)
        errors.append((found - exact) / stderr)
    return np.sqrt(np.mean(np.square(errors), axis=0))
