"""Small graphs for these tests, written as text."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from quant_core.executor import compile_model


def model(text: str, **initializers: np.ndarray) -> onnx.ModelProto:
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in initializers.items()
    )
    return proto


def compiled(proto: onnx.ModelProto, **options):
    return compile_model(ir.serde.deserialize_model(proto), **options)
