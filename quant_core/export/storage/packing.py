"""Bit planes: integer codes of any width as tensors of the widths ONNX can store."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from quant_core.errors import SpecError

_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Plane:
    """One stored tensor of a weight.

    Attributes:
        suffix: Added to the weight's name.
        dtype: ONNX element type (`TensorProto.INT4` and so on).
        dims: Stored shape.
        data: Raw bytes, as ONNX packs them: first element in the low bits.
    """

    suffix: str
    dtype: int
    dims: tuple[int, ...]
    data: bytes


_SIGNED = {2: onnx.TensorProto.INT2, 4: onnx.TensorProto.INT4, 8: onnx.TensorProto.INT8}
_LOW_BITS = {3: 2, 5: 4, 6: 4}
_UNSIGNED = {2: onnx.TensorProto.UINT2, 4: onnx.TensorProto.UINT4}


def pack(codes: npt.NDArray[np.int8], bits: int) -> tuple[Plane, ...]:
    """Lay signed codes out as stored tensors.

    2, 4 and 8 bits are one signed tensor. Other widths are offset by `2^(b-1)` and cut in two planes: 3 = UINT2 + one
    bit, 5 = UINT4 + one bit, 6 = UINT4 + UINT2, where single bits lie eight to a byte in a flat UINT8 tensor.

    Args:
        codes: int8 codes in `[-2^(b-1), 2^(b-1) - 1]`.
        bits: 2, 3, 4, 5, 6 or 8.

    Returns:
        One or two planes, the low one first.

    Raises:
        SpecError: If no layout exists for this width.
    """
    if bits in _SIGNED:
        return (Plane("", _SIGNED[bits], codes.shape, pack_bits(codes.astype(np.uint8), bits).tobytes()),)
    if bits not in _LOW_BITS:
        raise SpecError(
            f"{bits}-bit weights have no storage layout.", remedy="Choose 2, 3, 4, 5, 6 or 8 bits."
        )
    low_bits = _LOW_BITS[bits]
    unsigned: _Bytes = (codes.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    low = Plane(".lo", _UNSIGNED[low_bits], codes.shape, pack_bits(unsigned, low_bits).tobytes())
    high_bits = bits - low_bits
    packed = pack_bits(np.right_shift(unsigned, low_bits, dtype=np.uint8), high_bits)
    if high_bits == 1:
        return low, Plane(".hi", onnx.TensorProto.UINT8, packed.shape, packed.tobytes())
    return low, Plane(".hi", _UNSIGNED[high_bits], codes.shape, packed.tobytes())


def blank_planes(shape: tuple[int, ...], bits: int) -> tuple[Plane, ...]:
    """Give the planes of codes without their data, to know their sizes; `plane_bytes` tells how long that would be.

    Args:
        shape: Shape of the codes.
        bits: 2, 3, 4, 5, 6 or 8.

    Returns:
        One or two planes, the low one first.
    """
    if bits in _SIGNED:
        return (Plane("", _SIGNED[bits], shape, b""),)
    low_bits = _LOW_BITS[bits]
    low, high_bits = Plane(".lo", _UNSIGNED[low_bits], shape, b""), bits - low_bits
    if high_bits == 1:
        _, packed = plane_bytes(math.prod(shape), bits)
        return low, Plane(".hi", onnx.TensorProto.UINT8, (packed,), b"")
    return low, Plane(".hi", _UNSIGNED[high_bits], shape, b"")


def plane_bytes(count: int, bits: int) -> tuple[int, ...]:
    """Give the raw size of each plane without packing anything.

    Args:
        count: Number of codes.
        bits: Their width.

    Returns:
        Bytes of each plane, the low one first.
    """
    widths = (bits,) if bits in _SIGNED else (_LOW_BITS[bits], bits - _LOW_BITS[bits])
    return tuple((count * width + 7) // 8 for width in widths)


def pack_bits(values: _Bytes, bits: int) -> _Bytes:
    """Put the low bits of each value side by side, the first value in the low bits of the first byte.

    Args:
        values: uint8 values of any shape; higher bits are dropped.
        bits: 1, 2, 4 or 8.

    Returns:
        Flat bytes, the last one padded with zeros.
    """
    if bits == 8:
        return values.reshape(-1)
    per_byte = 8 // bits
    flat = values.reshape(-1) & ((1 << bits) - 1)
    padded = np.zeros(-(-flat.size // per_byte) * per_byte, dtype=np.uint8)
    padded[: flat.size] = flat
    out = np.zeros(padded.size // per_byte, dtype=np.uint8)
    for i in range(per_byte):
        out |= padded[i::per_byte] << (bits * i)
    return out
