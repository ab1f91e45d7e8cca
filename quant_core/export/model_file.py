"""Models on disk: one file, or above what protobuf can hold a second one with the tensors, written one by one."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

LARGEST_FILE = 2**31 - 2**20
"""Bytes of a model in one file; a protobuf message ends at 2 GiB."""

DATA_SUFFIX = ".data"
_SMALLEST = 1024  # bytes; what is smaller stays in the model
_ALIGNMENT = 4096  # bytes; lets a runtime map a tensor into memory


def model_bytes(proto: onnx.ModelProto) -> int:
    """Count the bytes of a model, also where no message can hold them.

    Args:
        proto: The model.

    Returns:
        Its bytes as one file.
    """
    tensors = proto.graph.initializer
    raw = sum(len(tensor.raw_data) for tensor in tensors)
    return proto.ByteSize() if raw < LARGEST_FILE else raw + sum(len(tensor.name) + 32 for tensor in tensors)


def write_model(proto: onnx.ModelProto, path: Path, largest: int = LARGEST_FILE) -> int:
    """Write a model; where it is too large for one file, its tensors go to `<path>.data`.

    Each tensor leaves memory as soon as it is written, so that none exists twice.

    Args:
        proto: The model; loses its tensors where they go to a second file.
        path: Where to write.
        largest: Most bytes for a single file.

    Returns:
        Bytes of all that was written.
    """
    data = data_file(path)
    data.unlink(missing_ok=True)
    if model_bytes(proto) <= largest:
        path.write_bytes(proto.SerializeToString())
        return path.stat().st_size
    with data.open("wb") as file:
        for tensor in proto.graph.initializer:
            length = len(tensor.raw_data)
            if length < _SMALLEST:
                continue
            file.seek(-file.tell() % _ALIGNMENT, 1)
            start = file.tell()
            file.write(tensor.raw_data)
            set_external_data(tensor, data.name, start, length)
            tensor.ClearField("raw_data")
    path.write_bytes(proto.SerializeToString())
    return path.stat().st_size + data.stat().st_size


def data_file(path: Path) -> Path:
    """Name the second file of a model.

    Args:
        path: The model.

    Returns:
        Where its tensors lie if they are not in it.
    """
    return path.with_name(path.name + DATA_SUFFIX)


def file_bytes(path: Path) -> int:
    """Count the bytes of a model on disk.

    Args:
        path: The model.

    Returns:
        Bytes of the model and of its second file.
    """
    data = data_file(path)
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)
