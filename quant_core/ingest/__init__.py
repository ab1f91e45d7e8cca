"""Bytes to a checked, normalised `onnx_ir.Model`, and the list of its quantizable layers."""

from quant_core.ingest.find_layers import find_layers
from quant_core.ingest.layer import Layer, Use
from quant_core.ingest.macs import with_shapes
from quant_core.ingest.normalise import normalise
from quant_core.ingest.source import Source, read_model

__all__ = ["Layer", "Source", "Use", "find_layers", "normalise", "read_model", "with_shapes"]
