"""Whether a network whose layers were followed lies closer to the float network, by its outputs."""

from __future__ import annotations

import torch

from quant_core.calibration import Samples
from quant_core.quantizers.chance import exceeds_chance
from quant_core.quantizers.float_network import FloatNetwork
from quant_core.quantizers.simulation.network import Simulation
from quant_core.quantizers.simulation.output_errors import error_falls

_ERRORS = 2.0
"""By how many of their standard errors the error and its logarithm must rise: following gains little in most places,
and chance alone is no reason to leave it."""


def leads_astray(network: FloatNetwork, before: Simulation, after: Simulation, samples: Samples) -> bool:
    """Tell whether following took the outputs further from those of the float network.

    Each layer is followed for what it writes, every place alike. Where ranges cut off what no output notices, as in
    front of a Tanh that is at its end there, making up for that takes places that count off their values.

    Args:
        network: The float network.
        before: The rounded network with the codes that were followed.
        after: The same with those that came of it.
        samples: Samples that tell.

    Returns:
        True where the squared error of the outputs rises by more than two of its standard errors, and so does its
        logarithm, sample by sample: one answer that tips over decides about no others.
    """
    falls = torch.from_numpy(error_falls(network, before, after, samples))
    return all(exceeds_chance(-fall, _ERRORS) for fall in falls)
