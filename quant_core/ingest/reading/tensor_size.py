"""Check that every stored tensor holds as many bytes as its dimensions say, before anything is allocated."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from quant_core.errors import ModelError
from quant_core.ingest.reading.proto_tensors import walk_tensors
from quant_core.spec.limits import limits

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.FLOAT8E8M0: 8,
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.UINT2: 2,
    TensorProto.INT2: 2,
}
_REMEDY = "The file is damaged or was written wrongly; export the model again."


def stored_bytes(tensor: onnx.TensorProto, name: str, where: str) -> int:
    """Give the bytes a tensor needs by its type and dimensions.

    Args:
        tensor: A tensor whose type has a fixed width.
        name: Its name for messages.
        where: The model file for messages.

    Returns:
        Bytes, sub-byte types packed.

    Raises:
        ModelError: If the type is unknown, a dimension is negative, or it is larger than `limits` allow.
    """
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        raise ModelError(
            f"tensor {name!r} has the unknown element type {tensor.data_type}.", remedy=_REMEDY, where=where
        )
    if any(size < 0 for size in tensor.dims):
        raise ModelError(
            f"tensor {name!r} has the negative dimension in {list(tensor.dims)}.", remedy=_REMEDY, where=where
        )
    elements: int = math.prod(tensor.dims)
    needed = (elements * bits + 7) // 8
    most = limits().tensor_bytes
    if most is not None and needed > most:
        raise ModelError(
            f"tensor {name!r} has {needed} bytes; {most} are allowed.",
            remedy="Give a model with smaller tensors, or have the limit raised.",
            where=where,
        )
    return needed


def check_tensor_sizes(model: onnx.ModelProto, where: str) -> None:
    """Compare dimensions and stored data of every tensor inside the file.

    Tensors in external files are checked by `quant_core.ingest.reading.external_data`.

    Args:
        model: The parsed file.
        where: The model file for messages.

    Raises:
        ModelError: If a tensor's data do not match its dimensions.
    """
    for name, tensor in walk_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            continue
        elements = math.prod(tensor.dims)
        if tensor.data_type == TensorProto.STRING:
            _expect(name, tensor, len(tensor.string_data), elements, "strings", where)
        elif tensor.HasField("raw_data"):
            needed = stored_bytes(tensor, name, where)
            _expect(name, tensor, len(tensor.raw_data), needed, "bytes", where)
        else:
            stored_bytes(tensor, name, where)
            found, needed = _typed_values(tensor, elements)
            _expect(name, tensor, found, needed, "values", where)


def _typed_values(tensor: onnx.TensorProto, elements: int) -> tuple[int, int]:
    # Types without a field of their own are stored in int32_data; sub-byte ones packed, complex ones in pairs.
    if tensor.data_type in {TensorProto.COMPLEX64, TensorProto.COMPLEX128}:
        return len(tensor.float_data) + len(tensor.double_data), 2 * elements
    bits = _BITS[tensor.data_type]
    needed = elements if bits >= 8 else (elements * bits + 7) // 8
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return sum(len(field) for field in fields), needed


def _expect(name: str, tensor: onnx.TensorProto, found: int, needed: int, unit: str, where: str) -> None:
    if found != needed:
        raise ModelError(
            f"tensor {name!r} of shape {list(tensor.dims)} needs {needed} {unit} but the file holds {found}.",
            remedy=_REMEDY,
            where=where,
        )
