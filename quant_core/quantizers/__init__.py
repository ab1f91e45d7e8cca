"""Integer weights and activations, and the network that computes with them."""

from quant_core.codes import ActivationGrid, CorrectedBias, QuantizedWeight
from quant_core.quantizers.grids.activation import (
    activation_grid,
    dynamic_fake_quantize,
    fake_quantize,
)
from quant_core.quantizers.grids.elements import code_range
from quant_core.quantizers.grids.weight import (
    quantize_weight,
    round_to_nearest,
)
from quant_core.quantizers.simulation.network import Simulation, insert_taps

__all__ = [
    "ActivationGrid",
    "CorrectedBias",
    "QuantizedWeight",
    "Simulation",
    "activation_grid",
    "code_range",
    "dynamic_fake_quantize",
    "fake_quantize",
    "insert_taps",
    "quantize_weight",
    "round_to_nearest",
]
