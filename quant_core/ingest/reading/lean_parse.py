"""Parse a model without its weights: large initializers of the file become references to where they lie in it.

A protobuf keeps every weight in its own memory and hands out copies, so that a parsed model costs twice its size and a
checked one three times. The wire format says where each weight's bytes are; they are left out of what is parsed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import TensorProto

from quant_core.errors import ModelError

ALIGNMENT = 64
"""Bytes: weights that begin at a multiple of it are computed with where they lie."""
LARGE = 1 << 16
"""Bytes from which a tensor is left in the file."""
_MOST_FIELDS = 1_000_000
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_WHOLE = frozenset(
    (
        *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16),
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
    )
)
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


class _UnusualError(Exception):
    """The file is damaged or written in a way that only the full parser need understand."""


def read_skeleton(path: Path) -> bytes | None:
    """The file without its large initializers, each of which refers to its place in the file as to external data.

    Args:
        path: The file.

    Returns:
        A protobuf to parse; None if nothing is gained, or if the file has to be parsed whole to say what is wrong.
    """
    if path.is_symlink() or path.stat().st_size < LARGE:
        return None
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            return _Splitter(view, path.name).model()
        except _UnusualError:
            return None


def attach_own_data(model: ir.Model, path: Path) -> None:
    """Give initializers that refer to the model's own file their values.

    Args:
        model: The graph of a skeleton.
        path: The file.

    Raises:
        ModelError: If the file has become shorter since.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if (
            isinstance(tensor, ir.ExternalTensor)
            and str(tensor.location) == path.name
            and int(tensor.dtype) in _WHOLE
        ):
            # Mapped pages would do where the values are aligned, which those of a protobuf rarely are.
            held = _aligned(tensor.nbytes)
            with path.open("rb") as stream:
                stream.seek(tensor.offset or 0)
                if stream.readinto(held.data) != tensor.nbytes:
                    raise ModelError(
                        f"the file ended inside of tensor {tensor.name!r}.",
                        remedy="Something is writing to it; copy it again.",
                        where=str(path),
                    )
            held.flags.writeable = False
            shape = tuple(tensor.shape.numpy())
            array = held.view(tensor.dtype.numpy().newbyteorder("<")).reshape(shape)
            value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)


def _aligned(size: int) -> np.ndarray:
    held = np.empty(size + ALIGNMENT, np.uint8)
    start = -held.ctypes.data % ALIGNMENT
    return held[start : start + size]


class _Splitter:
    def __init__(self, view: Any, name: str) -> None:
        self.view = view
        self.name = name
        self.left = _MOST_FIELDS
        self.saved = 0

    def model(self) -> bytes | None:
        made = bytearray()
        for number, kind, start, value, end in self._fields(0, len(self.view)):
            if number == _GRAPH and kind == _BYTES:
                _append(made, _GRAPH, self._graph(value, end))
            else:
                made += self.view[start:end]
        return bytes(made) if self.saved else None

    def _graph(self, begin: int, stop: int) -> bytes:
        made = bytearray()
        for number, kind, start, value, end in self._fields(begin, stop):
            if number == _INITIALIZER and kind == _BYTES and end - value >= LARGE:
                _append(made, _INITIALIZER, self._tensor(value, end))
            else:
                made += self.view[start:end]
        return bytes(made)

    def _tensor(self, begin: int, stop: int) -> bytes:
        made, places = bytearray(), []
        for number, kind, start, value, end in self._fields(begin, stop):
            if number in {_EXTERNAL_DATA, _DATA_LOCATION}:
                raise _UnusualError
            if number == _RAW_DATA and kind == _BYTES:
                places.append((value, end - value))
            else:
                made += self.view[start:end]
        if len(places) != 1 or places[0][1] < LARGE or self._packed(made):
            return bytes(self.view[begin:stop])
        offset, length = places[0]
        self.saved += length
        reference = TensorProto(data_location=TensorProto.EXTERNAL)
        for key, entry in (("location", self.name), ("offset", str(offset)), ("length", str(length))):
            reference.external_data.add(key=key, value=entry)
        made += reference.SerializeToString()
        return bytes(made)

    @staticmethod
    def _packed(rest: bytearray) -> bool:
        """Whether several values share a byte, or the type is none that numpy holds as it is stored."""
        try:
            described = TensorProto.FromString(bytes(rest))
        except DecodeError as error:
            raise _UnusualError from error
        return described.data_type not in _WHOLE

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Number, wire type, start, start of the value, and end of each field."""
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise _UnusualError
            start = at
            tag, at = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            value = at
            if kind == _VARINT:
                _, at = self._varint(at, end)
            elif kind == _BYTES:
                length, value = self._varint(at, end)
                at = value + length
            elif kind in {_EIGHT, _FOUR}:
                at += 8 if kind == _EIGHT else 4
            else:
                raise _UnusualError
            if at > end or number == 0:
                raise _UnusualError
            yield number, kind, start, value, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        number = shift = 0
        while at < end and shift < 64:
            byte = self.view[at]
            at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number, at
            shift += 7
        raise _UnusualError


def _append(made: bytearray, number: int, content: bytes) -> None:
    made += _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _encoded(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)
