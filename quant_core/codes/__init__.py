"""Codes of weights and the grids of activations: plain values, which whoever writes or sizes a file needs.

They stand apart from what computes them, which loads torch.
"""

from quant_core.codes.activation_grid import ActivationGrid
from quant_core.codes.channels import SPREAD, ChannelAxis, channel_axes, channel_count, channels_first, spread
from quant_core.codes.weight import CorrectedBias, NarrowChannels, QuantizedWeight

__all__ = [
    "SPREAD",
    "ActivationGrid",
    "ChannelAxis",
    "CorrectedBias",
    "NarrowChannels",
    "QuantizedWeight",
    "channel_axes",
    "channel_count",
    "channels_first",
    "spread",
]
