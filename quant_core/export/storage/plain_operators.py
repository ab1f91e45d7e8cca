"""Packed codes unpacked by standard ONNX operators alone, at any opset from 18 on."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from quant_core.codes.outliers import EXCESS_BITS
from quant_core.codes.trellis import stride_of
from quant_core.export.storage.graph_nodes import GraphNodes
from quant_core.export.storage.packing import Plane

_WIDTHS: dict[int, int] = {
    onnx.TensorProto.INT2: 2,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT4: 4,
}
_FIRST_OPSET = {2: 25, 4: 21}  # with tensors of such elements


@dataclass(frozen=True)
class PlainOperators:
    """Types of 2 and 4 bits where the opset has them; else bytes that BitShift and BitwiseAnd take apart.

    Codes of two planes are `low | high << l`, less `2^(b-1)`; signed codes that had to be stored as bytes are
    `(u ^ 2^(b-1)) - 2^(b-1)` with u their two's complement.

    Attributes:
        opset: Opset of the file.
        shares_constants: True: layers of one width are unpacked with the same constants.
    """

    opset: int
    shares_constants: bool = True

    def write(
        self, writer: GraphNodes, name: str, planes: Sequence[Plane], bits: int, shape: Sequence[int]
    ) -> str:
        """Store planes and append what turns them into int8."""
        low = planes[0]
        if bits == 8 or (len(planes) == 1 and self._has(low.dtype)):
            stored = writer.store(name, low)
            return stored if bits == 8 else writer.node("Cast", [stored], to=onnx.TensorProto.INT8)
        code = self._unsigned(writer, name, low, _WIDTHS[low.dtype], shape)
        sign = 1 << (bits - 1)
        if len(planes) == 2:
            width = _WIDTHS[low.dtype]
            high = self._unsigned(writer, name, planes[1], bits - width, shape)
            shift = writer.constant(np.array(width, dtype=np.uint8))
            raised = writer.node("BitShift", [high, shift], direction="LEFT")
            code = writer.node("BitwiseOr", [raised, code])
        else:
            code = writer.node("BitwiseXor", [code, writer.constant(np.array(sign, dtype=np.uint8))])
        as_int8 = writer.node("Cast", [code], to=onnx.TensorProto.INT8)
        return writer.node("Sub", [as_int8, writer.constant(np.array(sign, dtype=np.int8))])

    def write_outliers(
        self, writer: GraphNodes, dense: str, gaps: str, excess: Sequence[Plane], shape: Sequence[int]
    ) -> str:
        """Store excesses as codes of 4 bits and append what adds them: `codes[sum of gaps so far] += excess`."""
        more = self.write(writer, writer.fresh(), excess, EXCESS_BITS, excess[0].dims)
        flat, first = (writer.constant(np.array(value, dtype=np.int64)) for value in ([-1], 0))
        steps = writer.node("Cast", [gaps], to=onnx.TensorProto.INT32)
        at = writer.node("CumSum", [steps, first])
        line = writer.node("Reshape", [dense, flat])
        line = writer.node("ScatterElements", [line, at, more], axis=0, reduction="add")
        return writer.node("Reshape", [line, writer.constant(np.array(shape, dtype=np.int64))])

    def write_trellis(self, writer: GraphNodes, dense: str, shape: Sequence[int], axis: int) -> str:
        """Append what decodes: `2 (c xor u2 xor u3) + u2`, u the last bits of c two and three steps before."""
        one = writer.constant(np.array(1, dtype=np.int8))
        bits = writer.node("BitwiseAnd", [dense, one])
        along, first = (writer.constant(np.array([at], dtype=np.int64)) for at in (axis, 0))
        delayed = []
        for steps in (2, 3):
            shift = steps * stride_of(shape[axis])
            kept = writer.node("Slice", [bits, first, writer.constant(np.array([-shift])), along])
            delayed.append(writer.node("Pad", [kept, writer.constant(np.array([shift, 0])), "", along]))
        flipped = writer.node("BitwiseXor", delayed)
        half = writer.node("BitwiseXor", [dense, flipped])
        return writer.node("Add", [writer.node("Add", [half, half]), delayed[0]])

    def functions(self, widths: Collection[int]) -> list[onnx.FunctionProto]:  # noqa: ARG002
        """List no function: other runtimes may not know how to call them."""
        return []

    def _has(self, dtype: int) -> bool:
        return dtype in _WIDTHS and self.opset >= _FIRST_OPSET[_WIDTHS[dtype]]

    def _unsigned(self, writer: GraphNodes, name: str, plane: Plane, width: int, shape: Sequence[int]) -> str:
        """One plane as uint8 values in the shape of the codes."""
        if self._has(plane.dtype):
            stored = writer.store(name + plane.suffix, plane)
            return writer.node("Cast", [stored], to=onnx.TensorProto.UINT8)
        count, per_byte = math.prod(shape), 8 // width
        length = -(-count // per_byte)
        flat = replace(plane, dtype=onnx.TensorProto.UINT8, dims=(length,))
        column = writer.node(
            "Unsqueeze",
            [writer.store(name + plane.suffix, flat), writer.constant(np.array([1], dtype=np.int64))],
        )
        shifts = writer.constant(np.arange(0, 8, width, dtype=np.uint8))
        shifted = writer.node("BitShift", [column, shifts], direction="RIGHT")
        mask = writer.constant(np.array((1 << width) - 1, dtype=np.uint8))
        values = writer.node("BitwiseAnd", [shifted, mask])
        if length * per_byte != count:
            line = writer.node("Reshape", [values, writer.constant(np.array([-1], dtype=np.int64))])
            start, end = (writer.constant(np.array([at], dtype=np.int64)) for at in (0, count))
            values = writer.node("Slice", [line, start, end])
        return writer.node("Reshape", [values, writer.constant(np.array(shape, dtype=np.int64))])
