"""Integer weights and activations, and the network that computes with them."""

from quant_core.codes import ActivationGrid, CorrectedBias, QuantizedWeight
from quant_core.quantizers.activation import (
    activation_grid,
    dynamic_fake_quantize,
    fake_quantize,
)
from quant_core.quantizers.grids.elements import code_range
from quant_core.quantizers.simulation import Simulation, insert_taps
from quant_core.quantizers.weight import (
    quantize_weight,
    round_to_nearest,
)

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
