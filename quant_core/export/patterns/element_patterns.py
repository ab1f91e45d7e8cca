"""Codes as tensors of a file, and the nodes that make them float values in units of their scale.

All of it folds when onnxruntime loads the file. Its CPU kernels read E4M3 and E5M2; E2M1 they do not, so its codes are
stored as 4-bit integers, which are looked up in a table of sixteen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from quant_core.codes import QuantizedWeight
from quant_core.codes.number_formats import code_values, element, nearest_code
from quant_core.export.patterns.graph_writer import GraphWriter
from quant_core.export.storage.packing import Plane

_FLOAT8 = {"e4m3": onnx.TensorProto.FLOAT8E4M3FN, "e5m2": onnx.TensorProto.FLOAT8E5M2}


def stored_elements(
    writer: GraphWriter, name: str, weight: QuantizedWeight, codes: npt.NDArray[np.int8]
) -> str:
    """Store codes.

    Args:
        writer: Where to write.
        name: Name of the first stored tensor.
        weight: Says what the codes are.
        codes: They, in the shape they are stored in; that of the weight where there are outliers, a
            trellis, or channels of two widths.

    Returns:
        Name of an int8 tensor, or of one of 8-bit floats.
    """
    if weight.outliers is not None:
        dense = writer.stored_codes(name, weight.dense_codes(), weight.bits)
        return writer.add_outliers(dense, weight, weight.outliers)
    if weight.trellis:
        stored = replace(weight, codes=weight.dense_codes(), trellis=False)
        return writer.add_trellis(stored_elements(writer, name, stored, stored.codes), weight)
    if weight.narrow is not None:
        return writer.stored_channels(name, weight, weight.narrow)
    minifloat = element(weight.format)
    if minifloat in _FLOAT8:
        return writer.store(name, Plane("", _FLOAT8[minifloat], codes.shape, codes.tobytes()))
    return writer.stored_codes(name, codes, weight.bits)


def as_values(writer: GraphWriter, weight: QuantizedWeight, codes: str, *, integers: bool = False) -> str:
    """Append what turns codes into float values; zero points are not taken from them.

    Args:
        writer: Where to write.
        weight: Says what the codes are.
        codes: Name of the codes, as `stored_elements` gives it, or of some of them.
        integers: Whether the codes are int8 tensors also where ONNX has a type for the format.

    Returns:
        Name of the float tensor.
    """
    minifloat = element(weight.format)
    if minifloat == "e2m1" or (minifloat is not None and integers):
        # Codes with a sign are negative in two's complement, which Gather counts from the end.
        index = writer.node("Cast", [codes], to=onnx.TensorProto.INT32)
        return writer.node("Gather", [writer.constant(code_values(minifloat)), index])
    return writer.node("Cast", [codes], to=onnx.TensorProto.FLOAT)


def stored_scales(writer: GraphWriter, weight: QuantizedWeight, shape: tuple[int, ...]) -> str:
    """Store steps and append what turns them into float32, exactly.

    Steps of channels and tensors are float32, those of blocks bfloat16; MXFP4 stores exponents of 2 in a byte, NVFP4
    E4M3 numbers beside one float32 factor.

    Args:
        writer: Where to write.
        weight: Holds the steps.
        shape: Shape to store them in.

    Returns:
        Name of the float tensor.
    """
    scale = weight.scale.reshape(shape)
    if weight.block_size is None:
        return writer.constant(scale)
    if weight.format == "mxfp4":
        exponents = np.frexp(scale)[1] + 126
        stored = writer.store(writer.fresh(), _plane(onnx.TensorProto.UINT8, exponents.astype(np.uint8)))
        biased = writer.node("Cast", [stored], to=onnx.TensorProto.FLOAT)
        exponent = writer.node("Sub", [biased, writer.constant(np.array(127, dtype=np.float32))])
        return writer.node("Pow", [writer.constant(np.array(2, dtype=np.float32)), exponent])
    if weight.tensor_scale is not None:
        codes = nearest_code((scale / np.float32(weight.tensor_scale)).astype(np.float32), "e4m3")
        stored = writer.store(writer.fresh(), _plane(onnx.TensorProto.FLOAT8E4M3FN, codes))
        number = writer.node("Cast", [stored], to=onnx.TensorProto.FLOAT)
        return writer.node("Mul", [number, writer.constant(np.array(weight.tensor_scale, dtype=np.float32))])
    halves = np.ascontiguousarray(scale).view(np.uint32) >> 16
    stored = writer.store(writer.fresh(), _plane(onnx.TensorProto.BFLOAT16, halves.astype(np.uint16)))
    return writer.node("Cast", [stored], to=onnx.TensorProto.FLOAT)


def stored_zero_points(
    writer: GraphWriter, name: str, weight: QuantizedWeight, shape: tuple[int, ...]
) -> str | None:
    """Store zero points in the width of the codes.

    Args:
        writer: Where to write.
        name: Name of the weight's first stored tensor.
        weight: Holds them.
        shape: Shape to store them in.

    Returns:
        Name of the int8 tensor; None where the grid is symmetric.
    """
    if weight.zero_point is None:
        return None
    return writer.stored_codes(f"{name}.zp", weight.zero_point.reshape(shape or (1,)), weight.bits)


def _plane(dtype: int, data: npt.NDArray[Any]) -> Plane:
    return Plane("", dtype, data.shape, data.tobytes())
