"""How ONNX element types are carried as torch tensors.

Torch computes well in a few types only, so narrower ones travel inside a wider *carrier*: two- and four-bit
integers as 8-bit ones, unsigned 16/32/64-bit integers as the next signed type, every float narrower than 32 bits as
float32 that holds only values of the narrow grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from quant_core.errors import ModelError
from quant_core.ingest.reading.lean_parse import ALIGNMENT

Kind = ir.DataType

_INTEGER_CARRIERS = {
    Kind.BOOL: torch.bool,
    Kind.INT2: torch.int8,
    Kind.INT4: torch.int8,
    Kind.INT8: torch.int8,
    Kind.INT16: torch.int16,
    Kind.INT32: torch.int32,
    Kind.INT64: torch.int64,
    Kind.UINT2: torch.uint8,
    Kind.UINT4: torch.uint8,
    Kind.UINT8: torch.uint8,
    Kind.UINT16: torch.int32,
    Kind.UINT32: torch.int64,
    Kind.UINT64: torch.int64,
}
_COMPLEX_CARRIERS = {Kind.COMPLEX64: torch.complex64, Kind.COMPLEX128: torch.complex128}
_MINIFLOATS = frozenset(
    {
        Kind.FLOAT8E4M3FN,
        Kind.FLOAT8E4M3FNUZ,
        Kind.FLOAT8E5M2,
        Kind.FLOAT8E5M2FNUZ,
        Kind.FLOAT8E8M0,
        Kind.FLOAT6E2M3,
        Kind.FLOAT6E3M2,
        Kind.FLOAT4E2M1,
    }
)
_FLOATS = _MINIFLOATS | {Kind.FLOAT16, Kind.BFLOAT16, Kind.FLOAT, Kind.DOUBLE}

_KINDS = {
    torch.bool: Kind.BOOL,
    torch.int8: Kind.INT8,
    torch.int16: Kind.INT16,
    torch.int32: Kind.INT32,
    torch.int64: Kind.INT64,
    torch.uint8: Kind.UINT8,
    torch.float16: Kind.FLOAT16,
    torch.bfloat16: Kind.BFLOAT16,
    torch.float32: Kind.FLOAT,
    torch.float64: Kind.DOUBLE,
    torch.complex64: Kind.COMPLEX64,
    torch.complex128: Kind.COMPLEX128,
}


def is_float(kind: Kind | None) -> bool:
    """Whether an ONNX element type is a real floating-point type of any width."""
    return kind in _FLOATS


def is_minifloat(kind: Kind | None) -> bool:
    """Whether an ONNX element type is a float of eight bits or fewer."""
    return kind in _MINIFLOATS


def kind_of(dtype: torch.dtype) -> Kind:
    """The ONNX element type a torch type stands for when the graph does not say."""
    return _KINDS.get(dtype, Kind.UNDEFINED)


@dataclass(frozen=True)
class Precision:
    """Which torch type computes each ONNX element type.

    Attributes:
        dtype: Type of every float tensor, or None: float64 for double, float32 for all others.
    """

    dtype: torch.dtype | None = None

    def carrier(self, kind: Kind) -> torch.dtype:
        """The torch type that carries an ONNX element type.

        Returns:
            The carrier type.

        Raises:
            ModelError: If the type has no numeric carrier, such as a string.
        """
        if kind in _FLOATS:
            return self.dtype or (torch.float64 if kind == Kind.DOUBLE else torch.float32)
        found = _INTEGER_CARRIERS.get(kind) or _COMPLEX_CARRIERS.get(kind)
        if found is None:
            raise ModelError(
                f"Tensors of type {kind.name} cannot be computed with.",
                remedy="Remove the string or opaque parts of the graph before quantizing.",
            )
        return found


class _Writable:
    """Presents a read-only array as writable, so that torch shares its memory without a copy or a warning."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def to_torch(array: np.ndarray, kind: Kind, precision: Precision) -> torch.Tensor:
    """A torch tensor for an ONNX value, sharing memory when the carrier is the stored type.

    Products of matrices differ in the last digit by where their operands begin in memory. So that the same model gives
    the same numbers in every process, however it was loaded, values of up to 16 MB begin at a multiple of 64 bytes.

    The result must not be written to in place: it may be a view of a memory-mapped file.

    Args:
        array: Values as numpy or ml_dtypes hold them.
        kind: Declared ONNX element type.
        precision: Which torch type computes each ONNX type.

    Returns:
        Tensor of the carrier type, same shape.
    """
    carrier = precision.carrier(kind)
    if array.dtype.kind == "V" or array.dtype.name not in _NATIVE:
        # ml_dtypes types and unsigned integers beyond 8 bits: numpy widens them exactly.
        array = array.astype(np.float32 if kind in _FLOATS else np.int64)
    if array.size == 0 or array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    elif not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if not array.flags.writeable:
        array = np.asarray(_Writable(array))
    tensor = torch.from_numpy(array).to(carrier)
    misplaced = tensor.data_ptr() % ALIGNMENT and tensor.nbytes <= _MOST_COPIED
    return tensor.clone() if misplaced else tensor


_MOST_COPIED = 1 << 24
_MOST_AXES = 64
_NATIVE = frozenset(
    {
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    }
)


def to_numpy(tensor: torch.Tensor, kind: Kind | None = None) -> np.ndarray:
    """The numpy array of a tensor, in the ONNX element type the graph declares.

    Args:
        tensor: Any tensor; it is detached and moved to the host.
        kind: Declared ONNX element type; None keeps the carrier type.

    Returns:
        Array of the same shape.

    Raises:
        ModelError: If the tensor has more axes than an array can have.
    """
    if tensor.dim() > _MOST_AXES:
        raise ModelError(
            f"a tensor has {tensor.dim()} axes, and arrays have {_MOST_AXES} at most.",
            remedy="Join axes of the tensor, or export the model again.",
        )
    held = tensor.detach().cpu()
    array: np.ndarray = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
    if kind is None or kind == Kind.UNDEFINED:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(kind.numpy(), copy=False)
