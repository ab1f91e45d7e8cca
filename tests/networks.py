"""Networks written as onnx's text, with arrays stored in them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import numpy_helper

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def network(text: str, arrays: Mapping[str, ArrayLike] | None = None) -> onnx.ModelProto:
    """Read a graph, of opset 21 where its text does not say another, and store arrays in it, float64 as float32."""
    proto = onnx.parser.parse_model(text if text.lstrip().startswith("<ir_version") else HEADER + text)
    for name, values in (arrays or {}).items():
        array = np.asarray(values)
        stored = array.astype(np.float32) if array.dtype == np.float64 else array
        proto.graph.initializer.append(numpy_helper.from_array(stored, name))
    return proto


def drawn(rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Draw a normal array of each shape, in their order."""
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}
