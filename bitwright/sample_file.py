"""Samples as a file: a path as it is, arrays written to a temporary one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.errors import InvalidRequestError

if TYPE_CHECKING:
    import numpy as np

    Samples = str | PathLike[str] | np.ndarray[Any, Any] | Mapping[str, np.ndarray[Any, Any]]


@contextmanager
def sample_file(data: Samples) -> Iterator[Path]:
    """Give samples as a file for as long as the context lasts.

    Args:
        data: A path to `.npz` or `.npy`; an array for the only graph input (first axis = samples); or one
            array for each graph input by name, with optional `labels`.

    Yields:
        The file.
    """
    if isinstance(data, str | PathLike):
        yield existing(data)
        return
    import numpy as np  # only those who have arrays need it

    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        if isinstance(data, Mapping):
            path = Path(folder) / "samples.npz"
            # The arrays' names are the users' own; as keywords they could collide with savez's.
            _save_archive(path, {name: np.asarray(array) for name, array in data.items()})
        else:
            path = Path(folder) / "samples.npy"
            np.save(path, np.asarray(data), allow_pickle=False)
        yield path


def existing(path: str | PathLike[str]) -> Path:
    """Check that a file is there.

    Args:
        path: The file.

    Returns:
        Its path.

    Raises:
        InvalidRequestError: If there is no such file.
    """
    found = Path(path)
    if not found.is_file():
        raise InvalidRequestError(
            "There is no such file.", remedy="Check the path.", where=str(path), code="no_file"
        )
    return found


def _save_archive(path: Path, arrays: Mapping[str, Any]) -> None:
    import zipfile

    from numpy.lib import format as npy

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array(file, array, allow_pickle=False)
