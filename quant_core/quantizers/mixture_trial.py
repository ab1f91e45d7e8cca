"""Whether following mixed samples helps, judged by samples that were neither mixed nor followed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np

from quant_core.calibration import Samples
from quant_core.executor import Program
from quant_core.quantizers.following import FEWEST, Look, Weights
from quant_core.quantizers.output_errors import Vector, error_falls
from quant_core.quantizers.simulation import Simulation
from quant_core.quantizers.tuning_samples import mixable

_FOLDS, _MOST_JUDGES = 3, 64
"""Parts of the samples, and how many of one judge what follows the others."""
_ERRORS = 2.0
"""By how many of its standard errors the logarithm of the error must fall."""


def mixtures_help(
    program: Program,
    followed: Callable[[Samples, Look], Weights],
    simulate: Callable[[Weights], Simulation],
    samples: Samples,
    outputs: Collection[str],
    *,
    batch_size: int,
) -> bool:
    """Tell by cross-validation whether layers come out better where mixtures of samples are followed as well.

    A mixture of two images looks much like an image; one of two lines of text is none that the network will be asked
    to read. Each third of the samples judges what follows the other two, with mixtures and without.

    Args:
        program: The float network.
        followed: Gives the codes that follow some samples.
        simulate: Gives the network of a plan's weights, rounded activations and all.
        samples: Calibration samples.
        outputs: Tensors that tell whether it helps, those of them that are float.
        batch_size: Samples a run.

    Returns:
        True if the logarithm of the outputs' error, sample by sample, falls by more than two of its standard errors;
        False too where samples cannot be mixed, or two thirds of them are too few to be followed.
    """
    if not mixable(samples) or samples.count * (_FOLDS - 1) // _FOLDS < FEWEST:
        return False
    fold, falls = np.arange(samples.count) % _FOLDS, np.zeros(0)
    for judging in range(_FOLDS):
        others = samples.take(np.flatnonzero(fold != judging))
        plain, mixed = followed(others, "many"), followed(others, "mixed")
        judges = samples.take(np.flatnonzero(fold == judging)[:_MOST_JUDGES])
        found = error_falls(program, simulate(plain), simulate(mixed), judges, outputs, batch_size)[1]
        falls = np.concatenate([falls, found])
        if not len(falls) or falls.mean() <= 0:
            return False
    return _sure(falls)


def _sure(falls: Vector) -> bool:
    """Whether the mean is above 0 by more than chance."""
    return bool(falls.mean() > _ERRORS * falls.std(ddof=1) / math.sqrt(len(falls)))
