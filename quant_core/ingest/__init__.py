"""Bytes to a checked, normalised `onnx_ir.Model`, and the list of its quantizable layers."""

from quant_core.ingest.find_layers import find_layers
from quant_core.ingest.layer import Layer, Use, with_float_activations
from quant_core.ingest.macs import with_shapes
from quant_core.ingest.normalise import normalise
from quant_core.ingest.reading.source import Source, read_model
from quant_core.ingest.unquantizable import FloatWeight, find_float_weights

__all__ = [
    "FloatWeight",
    "Layer",
    "Source",
    "Use",
    "find_float_weights",
    "find_layers",
    "normalise",
    "read_model",
    "with_float_activations",
    "with_shapes",
]
