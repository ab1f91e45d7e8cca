"""Small graphs for these tests, written as text."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from quant_core.executor import compile_model
from tests.networks import network


def model(text: str, **initializers: np.ndarray) -> onnx.ModelProto:
    return network(text, initializers)


def compiled(proto: onnx.ModelProto, **options):
    return compile_model(ir.serde.deserialize_model(proto), **options)
