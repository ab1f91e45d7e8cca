"""The `tensorrt` and `ort-cuda` targets: signed QDQ, weights of 4 bits in blocks, nothing packed, nothing cast.

What NVIDIA's compilers read (TensorRT documentation, "Quantization Schemes"): both operands of weighted operators are
rounded, activations by one scale a tensor, weights by one scale an output channel, all zero points are 0, biases are
float. E4M3 numbers may take the place of 8-bit integers, on both sides alike. Weights of 4 bits are read in blocks by
matrix products whose input stays float: integers in blocks of 64 or 128, and NVFP4, whose E4M3 scales are dequantized
first. MXFP4 and E5M2 are not among TensorRT's schemes; onnxruntime's CUDA provider has no kernel for any of these.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache, partial

import onnx_ir as ir

from quant_core.export.patterns.block_patterns import BLOCK_SIZES, block_of
from quant_core.export.placement.forms import Form, is_plain_product, is_right_operand
from quant_core.export.storage.unpacking import LocalFunctions
from quant_core.export.targets.target import Target
from quant_core.ingest.layer import Layer
from quant_core.spec import FLOAT_BITS, WeightFormat, WeightGrid
from quant_core.spec.weight_grid import FORMAT_BLOCK

_OPSET = 21
_FLOAT4_OPSET = 23
_BLOCK_BITS = 4
_INTEGER_BITS = 8
_CHANNELS = WeightGrid()
_TENSORRT_SIZES = (64, 128)
_TENSORRT_FORMATS: frozenset[WeightFormat] = frozenset({"fp8_e4m3", "nvfp4"})


def _form(
    layer: Layer,
    model: ir.Model,
    bits: int,
    activation_bits: int,
    grid: WeightGrid = _CHANNELS,
    *,
    formats: Collection[WeightFormat] = (),
    sizes: Collection[int] = BLOCK_SIZES,
) -> Form | None:
    if bits == FLOAT_BITS:
        return "float"
    if grid.format != "int" and grid.format not in formats:
        return None
    if grid.format == "int" and not grid.symmetric:
        return None
    if layer.axis is None or not is_right_operand(layer, model) or not is_plain_product(layer, model):
        return None
    ops = {use.op for use in layer.uses}
    is_matrix = ops <= {"Gemm", "MatMul"} and len(layer.shape) == 2
    if bits == _BLOCK_BITS and is_matrix:
        allowed = {FORMAT_BLOCK[grid.format]} if grid.format in FORMAT_BLOCK else sizes
        return "weight_only" if block_of(layer, grid.block, allowed) else None
    rounds = (layer.activation_bits or activation_bits) != FLOAT_BITS
    if bits == _INTEGER_BITS and rounds and grid.block is None and (is_matrix or ops == {"Conv"}):
        return "static"
    return None


def _target(name: str, form: partial[Form | None], opset: int = _OPSET) -> Target:
    return Target(
        name=name,
        form=form,
        opset=lambda _widths: opset,
        storage=LocalFunctions(),
        rounding="operands",
        blocks=True,
        symmetric=True,
    )


@lru_cache
def tensorrt(weights: WeightFormat = "int") -> Target:
    """Give the target of TensorRT, by itself or inside onnxruntime.

    Args:
        weights: What the request makes of the format's own width; activations are E4M3 where weights of 8 bits are.

    Returns:
        The target.
    """
    target = _target(
        "tensorrt",
        partial(_form, formats=_TENSORRT_FORMATS, sizes=_TENSORRT_SIZES),
        _FLOAT4_OPSET if weights == "nvfp4" else _OPSET,
    )
    return replace(
        target,
        formats=_TENSORRT_FORMATS,
        block_sizes=_TENSORRT_SIZES,
        float8=weights == "fp8_e4m3",
    )


TENSORRT = tensorrt()
"""TensorRT with integer weights."""

ORT_CUDA = _target("ort-cuda", partial(_form))
"""onnxruntime with its CUDA provider."""
