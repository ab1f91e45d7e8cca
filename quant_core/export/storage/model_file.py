"""Models on disk: one file, or above what protobuf can hold a second one with the tensors, written one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx.external_data_helper import set_external_data

from quant_core.export.storage.held_back import Exported

LARGEST_FILE = 2**30
"""Bytes of a model in one file. A protobuf message ends at 2 GiB, and writing one of 1.9 GB failed already."""

DATA_SUFFIX = ".data"
_SMALLEST = 1024  # bytes; what is smaller stays in the model
_FIELD = 6  # bytes of a tag and a length
_PIECE = 1 << 22  # elements
_ALIGNMENT = 4096  # bytes; lets a runtime map a tensor into memory


def model_bytes(model: Exported) -> int:
    """Count the bytes of a model, also where no message can hold them.

    Args:
        model: The model.

    Returns:
        Its bytes as one file, to within some bytes a tensor.
    """
    held_back = model.held_back
    missing = (t.name for t in model.proto.graph.initializer if t.name in held_back and not t.raw_data)
    return int(model.proto.ByteSize()) + sum(held_back[name].nbytes + _FIELD for name in missing)


def write_model(model: Exported, path: Path, largest: int = LARGEST_FILE) -> int:
    """Write a model; where it is too large for one file, its tensors go to `<path>.data`, one after the other.

    Large tensors that were not quantized are read from the model they come from, piece by piece.

    Args:
        model: The model; its message loses its tensors where they go to a second file.
        path: Where to write.
        largest: Most bytes for a single file.

    Returns:
        Bytes of all that was written.
    """
    data = data_file(path)
    data.unlink(missing_ok=True)
    proto = model.proto
    if model_bytes(model) <= largest:
        path.write_bytes(model.whole().SerializeToString())
        return path.stat().st_size
    with data.open("wb") as file:
        for tensor in proto.graph.initializer:
            held_back = model.held_back.get(tensor.name)
            if held_back is None and len(tensor.raw_data) < _SMALLEST:
                continue
            file.seek(-file.tell() % _ALIGNMENT, 1)
            start = file.tell()
            if held_back is None:
                file.write(tensor.raw_data)
            else:
                for piece in _pieces(held_back):
                    file.write(piece)
            tensor.raw_data = b""  # where the data lies is only said of tensors that have the field
            set_external_data(tensor, data.name, start, file.tell() - start)
            tensor.ClearField("raw_data")
    path.write_bytes(proto.SerializeToString())
    return path.stat().st_size + data.stat().st_size


def _pieces(tensor: ir.TensorProtocol) -> Iterator[bytes]:
    values = np.ascontiguousarray(tensor.numpy(), dtype="<f4").reshape(-1)
    for start in range(0, values.size, _PIECE):
        yield values[start : start + _PIECE].tobytes()


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
