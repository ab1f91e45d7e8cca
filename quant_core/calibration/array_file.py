"""Read `.npz` and `.npy` files without running anything in them and without trusting their sizes."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from quant_core.errors import SamplesError
from quant_core.named_files import require_sample_file

MAX_BYTES = 8 * 2**30
"""Largest amount of array data that is read from one file; calibration needs far less."""

_FORMAT_REMEDY = "Write the samples with numpy.savez(path, **{input_name: array})."


def read_arrays(path: Path) -> dict[str | None, np.ndarray]:
    """Read every array of a file.

    Args:
        path: An `.npz` or `.npy` file; which of them is told by its content.

    Returns:
        Arrays by name; a lone `.npy` array has the name None.

    Raises:
        SamplesError: If the file is missing, is neither, is damaged, holds Python objects, or is too large.
        MemoryError: If there is no memory for what it holds.
    """
    where = str(path)
    require_sample_file(path)
    with path.open("rb") as stream:
        head = stream.read(6)
    try:
        if head.startswith(b"PK"):
            return _read_archive(path)
        if head == b"\x93NUMPY":
            with path.open("rb") as stream:
                _check_size(stream, path.stat().st_size, MAX_BYTES, None, where)
            return {None: np.load(path, allow_pickle=False)}
    except (SamplesError, MemoryError):
        raise
    except Exception as error:
        # zipfile, zlib and numpy's header parser raise a dozen unrelated types on damaged bytes.
        raise SamplesError(
            f"the sample file is damaged or holds Python objects ({error}).",
            remedy=_FORMAT_REMEDY,
            where=where,
        ) from error
    raise SamplesError("this is neither an .npz nor an .npy file.", remedy=_FORMAT_REMEDY, where=where)


def read_ranks(path: Path) -> dict[str, int]:
    """Read how many axes the arrays of an `.npz` file have, from their headers alone.

    Args:
        path: The file.

    Returns:
        Axes by name; those of nothing where the file cannot be read, which `read_arrays` explains.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(".npy"): _rank(archive, member) for member in archive.infolist()
            }
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return {}


def _rank(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    with archive.open(member) as stream:
        shape, _ = _read_header(cast("BinaryIO", stream))
    return len(shape)


def _read_archive(path: Path) -> dict[str | None, np.ndarray]:
    arrays: dict[str | None, np.ndarray] = {}
    budget = MAX_BYTES
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise SamplesError(
                    f"the archive holds {member.filename!r}, which is no array; PyTorch files are not accepted.",
                    remedy=_FORMAT_REMEDY,
                    where=str(path),
                )
            if name in arrays:
                raise SamplesError(f"array {name!r} appears twice.", remedy=_FORMAT_REMEDY, where=str(path))
            with archive.open(member) as stream:
                budget -= _check_size(cast("BinaryIO", stream), member.file_size, budget, name, str(path))
            with archive.open(member) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _check_size(stream: BinaryIO, stored: int, budget: int, name: str | None, where: str) -> int:
    """Compare the header of one array with the bytes that are really there, before numpy allocates."""
    shape, dtype = _read_header(stream)
    title = "the array" if name is None else f"array {name!r}"
    if dtype.hasobject:
        raise SamplesError(f"{title} holds Python objects.", remedy=_FORMAT_REMEDY, where=where)
    needed = math.prod(shape) * dtype.itemsize
    if needed > stored:
        raise SamplesError(f"{title} is cut short.", remedy="Write or copy the file again.", where=where)
    if needed > budget:
        raise SamplesError(
            f"{title} brings the samples to more than {MAX_BYTES} bytes.",
            remedy="Give fewer samples; a few hundred are enough.",
            where=where,
        )
    return needed


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"array format {version}")
    return shape, dtype
