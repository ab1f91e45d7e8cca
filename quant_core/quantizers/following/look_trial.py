"""Which columns are worth following, judged by samples that were not followed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from quant_core.calibration import Samples
from quant_core.quantizers.chance import exceeds_chance
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.following.follow import Look, Weights
from quant_core.quantizers.following.places import FEWEST
from quant_core.quantizers.simulation.network import Simulation
from quant_core.quantizers.simulation.output_errors import error_falls
from quant_core.quantizers.tuning.tuning_samples import mixable

_FOLDS, _MOST_JUDGES = 3, 64
"""Parts of the samples, and how many of one judge what follows the others."""
_ERRORS = 2.0
"""By how many of its standard errors the logarithm of the error must fall."""


def best_look(
    network: FloatNetwork,
    followed: Callable[[Samples, Look], Weights],
    simulate: Callable[[Weights], Simulation],
    samples: Samples,
) -> Look:
    """Choose by cross-validation which columns layers follow.

    More columns know the inputs better where there are more; a mixture of two images looks much like an image, and one
    of two lines of text is none that the network will be asked to read. Each third of the samples judges what follows
    the other two.

    Args:
        network: The float network.
        followed: Gives the codes that follow some samples.
        simulate: Gives the network of a plan's weights, rounded activations and all.
        samples: Calibration samples.

    Returns:
        The look by which the logarithm of the outputs' error, sample by sample, falls furthest from that of few
        columns, of those where it does by more than two of its standard errors. Few where there is none, and where two
        thirds of the samples are too few to be followed; no mixtures of samples that cannot be mixed.
    """
    if samples.count * (_FOLDS - 1) // _FOLDS < FEWEST:
        return "few"
    looks: list[Look] = ["many", "mixed"] if mixable(samples) else ["many"]
    fold, falls = np.arange(samples.count) % _FOLDS, {look: np.zeros(0) for look in looks}
    for judging in range(_FOLDS):
        others = samples.take(np.flatnonzero(fold != judging))
        judges = samples.take(np.flatnonzero(fold == judging)[:_MOST_JUDGES])
        few = simulate(followed(others, "few"))
        for look in [*falls]:
            more = simulate(followed(others, look))
            found = error_falls(network, few, more, judges)[1]
            falls[look] = np.concatenate([falls[look], found])
            if not len(found) or falls[look].mean() <= 0:
                del falls[look]
        if not falls:
            return "few"
    sure = {
        look: float(fall.mean())
        for look, fall in falls.items()
        if exceeds_chance(torch.from_numpy(fall), _ERRORS)
    }
    return max(sure, key=lambda look: sure[look], default="few")
