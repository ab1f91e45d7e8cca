"""The `tensorrt` and `ort-cuda` targets: signed 8-bit QDQ, 4-bit blocks, nothing packed, nothing cast.

What NVIDIA's compilers read (TensorRT documentation, "Working with Quantized Types"): both operands of weighted
operators are rounded, activations by one scale a tensor, weights by one scale an output channel, all zero points are 0,
biases are float. 4-bit weights are read in blocks by matrix products whose input stays float.
"""

from __future__ import annotations

import onnx_ir as ir

from quant_core.export.block_patterns import block_of
from quant_core.export.forms import Form, is_plain_product, is_right_operand
from quant_core.export.storage import LocalFunctions
from quant_core.export.target import Target
from quant_core.ingest.layer import Layer
from quant_core.spec import FLOAT_BITS, WeightGrid

_OPSET = 21
_BLOCK_BITS = 4
_INTEGER_BITS = 8
_CHANNELS = WeightGrid()


def _form(
    layer: Layer, model: ir.Model, bits: int, activation_bits: int, grid: WeightGrid = _CHANNELS
) -> Form | None:
    if bits == FLOAT_BITS:
        return "float"
    if grid.format != "int" or not grid.symmetric:
        return None
    if layer.axis is None or not is_right_operand(layer, model) or not is_plain_product(layer, model):
        return None
    ops = {use.op for use in layer.uses}
    is_matrix = ops <= {"Gemm", "MatMul"} and len(layer.shape) == 2
    if bits == _BLOCK_BITS and is_matrix and block_of(layer, grid.block):
        return "weight_only"
    rounds = (layer.activation_bits or activation_bits) != FLOAT_BITS
    if bits == _INTEGER_BITS and rounds and grid.block is None and (is_matrix or ops == {"Conv"}):
        return "static"
    return None


def _target(name: str) -> Target:
    return Target(
        name=name,
        form=_form,
        opset=lambda _widths: _OPSET,
        storage=LocalFunctions(),
        rounding="operands",
        blocks=True,
        symmetric=True,
    )


TENSORRT = _target("tensorrt")
"""TensorRT, by itself or inside onnxruntime."""

ORT_CUDA = _target("ort-cuda")
"""onnxruntime with its CUDA provider."""
