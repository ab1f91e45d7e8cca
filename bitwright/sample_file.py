"""Samples as a file: a path as it is, arrays and batches written to a temporary one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bitwright.errors import InvalidRequestError
from bitwright.external_data import graph_inputs
from quant_core.named_files import is_utf8

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Samples = str | PathLike[str] | Array | Mapping[str, Array] | Iterable[Any]

LABELS = "labels"

_FORMS = "Give a path, an array, arrays by input name, or batches of them."


def sample_file(data: Samples, model: Path, folder: Path) -> Path:
    """Give samples as a file.

    Args:
        data: A path to `.npz` or `.npy`; an array for the only graph input (first axis = samples); one array for each
            graph input by name, with optional `labels`; or batches of such, as a torch `DataLoader` gives them: arrays
            or tensors, mappings, or sequences in the order of the graph's inputs with labels last where there is one
            more.
        model: The ONNX file, for the names of its inputs.
        folder: Where to write what is no file yet.

    Returns:
        The file.

    Raises:
        InvalidRequestError: If they are none of these.
    """
    if isinstance(data, str | PathLike):
        return existing(data)
    import numpy as np  # only those who have arrays need it

    if isinstance(data, Mapping):
        arrays = {name: _array(np, value) for name, value in data.items()}
    elif hasattr(data, "__array__"):
        path = folder / "samples.npy"
        np.save(path, _array(np, data), allow_pickle=False)
        return path
    elif _has_items(data):
        arrays = _joined(np, data, graph_inputs(model))
    else:
        _refuse("A", data, "samples")
    if not arrays:
        raise InvalidRequestError("There are no arrays.", remedy=_FORMS, where="data", code="samples")
    path = folder / "samples.npz"
    _save_archive(path, arrays)
    return path


def _joined(np: Any, batches: Iterable[Any], inputs: Sequence[str]) -> dict[str, Any]:
    """Put batches together along their first axis."""
    parts: dict[str, list[Any]] = {}
    for batch in batches:
        for name, value in _named(batch, inputs).items():
            parts.setdefault(name, []).append(_array(np, value))
    if not parts:
        raise InvalidRequestError(
            "There are no samples.", remedy="Give at least one batch.", where="data", code="samples"
        )
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _named(batch: Any, inputs: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(batch, Mapping):
        return batch
    if not hasattr(batch, "__array__") and not _has_items(batch):
        _refuse("Among the batches a", batch, "batch")
    values = [batch] if hasattr(batch, "__array__") else list(batch)
    names = [*inputs, LABELS]
    if len(values) not in {len(inputs), len(names)}:
        raise InvalidRequestError(
            f"A batch has {len(values)} arrays, and the model has the inputs {', '.join(inputs)}.",
            remedy="Give one array for each, and labels last if there are any; or a mapping by name.",
            where="data",
            code="samples",
        )
    return dict(zip(names, values, strict=False))


def _has_items(value: Any) -> bool:
    # Loaders may have `__getitem__` alone, which `Iterable` does not know of.
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def _array(np: Any, value: Any) -> Any:
    # A tensor with gradients, or one on a GPU, is no array until it is asked to become one.
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype == object:
        _refuse("A", value, "array of numbers")
    return array


def _refuse(which: str, value: Any, what: str) -> NoReturn:
    raise InvalidRequestError(
        f"{which} {type(value).__name__} is no {what}.", remedy=_FORMS, where="data", code="samples"
    )


def existing(path: str | PathLike[str]) -> Path:
    """Check that a file is there, under a name that can be sent.

    Args:
        path: The file.

    Returns:
        Its path.

    Raises:
        InvalidRequestError: If there is no such file, or its name is no text.
    """
    found = Path(path)
    if not found.is_file():
        raise InvalidRequestError(
            "There is no such file.", remedy="Check the path.", where=str(path), code="no_file"
        )
    if not is_utf8(Path(found.name)):
        raise InvalidRequestError(
            "The name holds bytes that are no UTF-8.",
            remedy="Rename the file.",
            where=str(path),
            code="no_file",
        )
    return found


def _save_archive(path: Path, arrays: Mapping[str, Any]) -> None:
    import zipfile

    from numpy.lib import format as npy

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            # Without the time of day: the same samples are the same bytes, which the service keeps once.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                npy.write_array(file, array, allow_pickle=False)
