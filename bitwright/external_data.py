"""Finds a model's inputs and the files its weights are in, without onnx: a walk over the protocol buffer's fields.

Field numbers are those of onnx.proto; whatever else the file holds is passed over. A file that is no model gives
nothing: to say what is wrong with it is the service's part.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Which fields lead on to tensors: message -> field number -> message.
_INSIDE: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_GRAPH, _INPUT, _INITIALIZER, _VALUE_NAME, _TENSOR_NAME = 7, 11, 5, 1, 8
_DEEPEST = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(model: Path) -> tuple[str, ...]:
    """Name the files beside a model that hold its weights.

    Args:
        model: The ONNX file.

    Returns:
        Paths relative to the model's folder, of files that are there and inside it; each once, in the model's order.
    """
    with model.open("rb") as file:
        if model.stat().st_size == 0:
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            names = dict.fromkeys(str(PurePosixPath(name)) for name in _locations(data))
    return tuple(name for name in names if _is_inside(model.parent, name))


def graph_inputs(model: Path) -> tuple[str, ...]:
    """Name what a model must be given.

    Args:
        model: The ONNX file.

    Returns:
        The graph's inputs in their order, without those that initializers fill.
    """
    names: list[str] = []
    filled: set[str] = set()
    with model.open("rb") as file:
        if model.stat().st_size == 0:
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                for number, start, stop in _fields(data, 0, len(data)):
                    if number == _GRAPH:
                        for part, first, last in _fields(data, start, stop):
                            if part == _INPUT:
                                names += _strings(data, first, last, _VALUE_NAME)
                            elif part == _INITIALIZER:
                                filled.update(_strings(data, first, last, _TENSOR_NAME))
            except (IndexError, ValueError):  # not a model, or cut short
                return ()
    return tuple(name for name in names if name not in filled)


def _strings(data: mmap.mmap, start: int, end: int, field: int) -> list[str]:
    return [data[first:last].decode() for number, first, last in _fields(data, start, end) if number == field]


def _is_inside(folder: Path, name: str) -> bool:
    try:
        place = (folder / name).resolve()
        return place.is_relative_to(folder.resolve()) and place.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, or a link to itself
        return False


def _locations(data: mmap.mmap) -> Iterator[str]:
    try:
        yield from _walk(data, "Model", 0, len(data), 0)
    except (IndexError, ValueError):  # not a model, or cut short
        return


def _walk(data: mmap.mmap, message: str, start: int, end: int, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    for number, place, stop in _fields(data, start, end):
        inner = _INSIDE[message].get(number)
        if inner == "Entry":
            key, value = b"", b""
            for part, first, last in _fields(data, place, stop):
                key = data[first:last] if part == 1 else key
                value = data[first:last] if part == 2 else value
            if key == b"location":
                yield value.decode()
        elif inner is not None:
            yield from _walk(data, inner, place, stop, depth + 1)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give number and extent of every field with a length."""
    while start < end:
        tag, start = _varint(data, start)
        kind = tag & 7
        if kind == _BYTES:
            length, start = _varint(data, start)
            if start + length > end:
                raise ValueError("cut short")
            yield tag >> 3, start, start + length
            start += length
        elif kind == _VARINT:
            _, start = _varint(data, start)
        elif kind in {_FIXED64, _FIXED32}:
            start += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("not a protocol buffer")


def _varint(data: mmap.mmap, start: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
        if shift > 63:
            raise ValueError("not a protocol buffer")
