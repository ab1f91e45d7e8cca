"""Tell by its first bytes what a file is, so that anything but ONNX is refused without being opened further."""

from __future__ import annotations

import zipfile
from pathlib import Path

EXPORT_REMEDY = "Export the model with torch.onnx.export and give the .onnx file."

# Offset, magic bytes, what it is.
_MAGIC = (
    (0, b"\x89HDF", "an HDF5 file (Keras or PyTables)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"GGUF", "a GGUF file"),
    (4, b"TFL3", "a TensorFlow Lite file"),
    (4, b"ORTM", "a file in onnxruntime's own format"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x93NUMPY", "a numpy array"),
    (8, b'{"', "a safetensors file, which holds weights but no graph"),
)
_PICKLE_PROTOCOLS = range(2, 6)


def foreign_kind(path: Path, head: bytes) -> str | None:
    """Name the format of a file that is not ONNX.

    Pickles and archives of pickles are recognised by their bytes and never unpickled.

    Args:
        path: The file.
        head: Its first bytes, 512 or all of them.

    Returns:
        What the file is, in words; None if nothing foreign is recognised.
    """
    if len(head) > 1 and head[0] == 0x80 and head[1] in _PICKLE_PROTOCOLS:
        return "a Python pickle (perhaps a PyTorch checkpoint)"
    if head.startswith(b"PK\x03\x04"):
        return _archive_kind(path)
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    return None


def _archive_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.split("/", 1)[-1] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError):
        return "a damaged zip archive"
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "a TorchScript archive"
    if "data.pkl" in names:
        return "a PyTorch checkpoint (zipped pickle)"
    if any(name in {"archive_format", "serialized_exported_program.json"} for name in names):
        return "a torch.export archive (.pt2)"
    if names and all(name.endswith(".npy") for name in names):
        return "a numpy .npz file"
    return "a zip archive"
