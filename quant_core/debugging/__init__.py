"""Where a quantized file loses, layer by layer."""

from quant_core.debugging.worst_layers import debug

__all__ = ["debug"]
