"""Check the external files that a model's tensors point to: inside the model's folder, there, large enough."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import onnx
from onnx import TensorProto

from quant_core.errors import ModelError
from quant_core.ingest.reading.proto_tensors import walk_tensors
from quant_core.ingest.reading.tensor_size import stored_bytes

_OUTSIDE_REMEDY = "Keep external data beside the model and refer to it by a plain relative path."


def check_external_data(model: onnx.ModelProto, path: Path) -> int:
    """Check every external reference without reading the data.

    Args:
        model: The parsed file.
        path: Where the model lies; references are relative to its folder.

    Returns:
        Bytes of all external files that are referenced, each counted once; the model's own file is none of them.

    Raises:
        ModelError: If a file is missing, lies or points outside the model's folder, or is too short.
    """
    sizes: dict[Path, int] = {}
    for name, tensor in walk_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = _locate(entries.get("location", ""), name, path)
        sizes[file] = file.stat().st_size
        _check_range(entries, tensor, name, file, sizes[file], path)
    sizes.pop(path.resolve(), None)
    return sum(sizes.values())


def _locate(location: str, name: str, path: Path) -> Path:
    """Resolve a reference to a regular file inside the model's folder."""
    if not location or "\0" in location:
        raise ModelError(
            f"tensor {name!r} refers to external data without a usable location.",
            remedy=_OUTSIDE_REMEDY,
            where=str(path),
        )
    # Windows paths count as absolute on every system: the file may have been written there on purpose.
    parts = re.split(r"[/\\]", location)
    if location[0] in "/\\" or re.match(r"[A-Za-z]:", location) or ".." in parts:
        raise ModelError(
            f"tensor {name!r} refers to external data at {location!r}, outside the model's folder.",
            remedy=_OUTSIDE_REMEDY,
            where=str(path),
        )
    folder = path.parent.resolve()
    candidate = folder / location
    try:
        file = candidate.resolve(strict=True)
        status = file.stat()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the external data file {location!r} of tensor {name!r} is missing.",
            remedy=f"Put {location!r} beside the model; over HTTP, send it as a part `files` of that name.",
            where=str(path),
        ) from error
    if not file.is_relative_to(folder):
        raise ModelError(
            f"the external data file {location!r} of tensor {name!r} is a link out of the model's folder.",
            remedy=_OUTSIDE_REMEDY,
            where=str(path),
        )
    own = file == path.resolve()
    if not stat.S_ISREG(status.st_mode) or (status.st_nlink > 1 and not own):
        raise ModelError(
            f"the external data file {location!r} of tensor {name!r} is not a regular file of its own.",
            remedy="Copy the file into the folder of the model; hard links and devices are refused.",
            where=str(path),
        )
    return file


def _check_range(
    entries: dict[str, str], tensor: onnx.TensorProto, name: str, file: Path, size: int, path: Path
) -> None:
    needed = stored_bytes(tensor, name, str(path))
    offset, length = (_read_number(entries, key, name, path) for key in ("offset", "length"))
    if length is not None and length != needed:
        raise ModelError(
            f"tensor {name!r} of shape {list(tensor.dims)} needs {needed} bytes but refers to {length}.",
            remedy="The file is damaged or was written wrongly; export the model again.",
            where=str(path),
        )
    end = (offset or 0) + needed
    if end > size:
        raise ModelError(
            f"tensor {name!r} ends at byte {end} of {file.name!r}, which has {size} bytes.",
            remedy="The external data file is cut short or belongs to another model; copy it again.",
            where=str(path),
        )


def _read_number(entries: dict[str, str], key: str, name: str, path: Path) -> int | None:
    if key not in entries:
        return None
    # More digits than a file can have bytes would only cost time to parse.
    if not re.fullmatch(r"[0-9]{1,18}", entries[key]):
        raise ModelError(
            f"tensor {name!r} refers to external data with the {key} {entries[key][:40]!r}.",
            remedy="The file is damaged or was written wrongly; export the model again.",
            where=str(path),
        )
    return int(entries[key])
