"""Sample files to samples that fit a graph."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from quant_core.calibration.array_file import read_arrays
from quant_core.calibration.samples import Samples
from quant_core.errors import SamplesError, name_some

LABELS = "labels"
LARGEST = float(np.sqrt(np.finfo(np.float32).max))
"""The square of what is larger is infinite in float32. Masks of attention lie as far below zero, and are no signal."""
_RUNS = "arrays with one axis more than the graph's inputs, in front, which counts runs"
_SHOWN, _LONGEST = 5, 200
"""How many names a message lists, and how much of each."""


def load_samples(path: Path, model: ir.Model) -> Samples:
    """Read samples and check them against the graph's inputs.

    An `.npz` file holds one array per graph input, under its name, and optionally `labels`, one class number a
    sample. An `.npy` file serves graphs with one input. The first axis of every array counts samples.

    Args:
        path: The file.
        model: The model the samples are for.

    Returns:
        Samples in the graph's own types, inputs in the graph's order.

    Raises:
        SamplesError: If the file cannot be read or does not fit; names the file and the field.
    """
    path = Path(path)
    initializers = set(model.graph.initializers)
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    arrays = _by_input_name(read_arrays(path), [value.name or "" for value in inputs], initializers, path)
    batch = _demanded_batch(inputs, path)
    labels = arrays.pop(LABELS, None) if all(value.name != LABELS for value in inputs) else None
    checked = {value.name or "": _check_input(arrays[value.name or ""], value, path) for value in inputs}
    counts = {name: len(array) for name, array in checked.items()}
    count = min(counts.values())
    if len(set(counts.values())) > 1:
        listed = _listed(f"{name} {number}" for name, number in counts.items())
        raise SamplesError(
            f"the inputs have different numbers of samples: {listed}.",
            remedy="Give every input the same number of samples.",
            where=str(path),
        )
    if count == 0:
        raise SamplesError("the file holds no samples.", remedy="Give at least two.", where=str(path))
    if batch is not None and count % batch:
        raise SamplesError(
            f"the graph takes exactly {batch} samples a run but the file holds {count}.",
            remedy=f"Give a multiple of {batch} samples, or export the model with a dynamic batch"
            f"{_second_axis(inputs)}.",
            where=str(path),
        )
    return Samples(
        inputs=checked,
        labels=None if labels is None else _check_labels(labels, count, model, path),
        batch=batch,
    )


def _by_input_name(
    arrays: dict[str | None, np.ndarray], names: list[str], constants: set[str], path: Path
) -> dict[str, np.ndarray]:
    if set(arrays) == {None}:
        if len(names) > 1:
            raise SamplesError(
                f"an .npy file holds one array but the graph has {len(names)} inputs: {_listed(names)}.",
                remedy="Give an .npz file with one array per input.",
                where=str(path),
            )
        return {names[0]: arrays[None]}
    named = {name: array for name, array in arrays.items() if name is not None}
    missing = [name for name in names if name not in named]
    extra = [name for name in named if name not in names and name != LABELS]
    if fixed := [name for name in extra if name in constants]:
        raise SamplesError(
            f"the file holds {_listed(map(repr, fixed))}, which the model has as constants: graph inputs with a "
            "default value become constants.",
            remedy="Leave these arrays out; where a value differs from sample to sample, remove its default.",
            where=str(path),
        )
    if missing or extra:
        parts = [f"lacks {_listed(map(repr, missing))}"] if missing else []
        parts += [f"holds the unknown {_listed(map(repr, extra))}"] if extra else []
        raise SamplesError(
            f"the file {' and '.join(parts)}.",
            remedy=f"Name the arrays as the graph names its inputs: {_listed(names)} (and optionally labels).",
            where=str(path),
        )
    return named


def _listed(names: Iterable[str]) -> str:
    """The first few of them: a file may hold any number."""
    return name_some([name[:_LONGEST] for name in names], _SHOWN)


def _second_axis(inputs: list[ir.Value]) -> str:
    """Say so where the axis that counts samples looks to be the second, as in recurrent networks of torch."""
    shapes = [value.shape for value in inputs if value.shape is not None]
    names = [shape[1] for shape in shapes if len(shape) > 1 and isinstance(shape[0], int)]
    if not names or any(isinstance(name, int) for name in names):
        return ""
    return (
        " as the first axis: samples are counted there, while this graph fixes it and leaves the second open"
    )


def _demanded_batch(inputs: list[ir.Value], path: Path) -> int | None:
    sizes = {}
    for value in inputs:
        if not isinstance(value.type, ir.TensorType):
            raise SamplesError(
                f"graph input {value.name!r} is no tensor.",
                remedy="Export the model with tensors as inputs; sequences and maps cannot be stored in sample files.",
                where=str(path),
            )
        if value.type.dtype.is_string():
            raise SamplesError(
                f"graph input {value.name!r} holds strings, which the executor cannot compute with.",
                remedy="Export the model from where the strings are numbers already, such as tokens or classes.",
                where=str(path),
            )
        if value.shape is not None and len(value.shape) == 0:
            raise SamplesError(
                f"graph input {value.name!r} is a scalar, so it cannot hold one value a sample.",
                remedy=f"Export the model with this input as a constant, or give whole runs: {_RUNS}.",
                where=str(path),
            )
        if value.shape is not None and isinstance(value.shape[0], int):
            sizes[value.name] = value.shape[0]
    if len(set(sizes.values())) > 1:
        listed = _listed(f"{name} {size}" for name, size in sizes.items())
        raise SamplesError(
            f"the graph fixes different first axes for its inputs: {listed}.",
            remedy="The first axis must count samples in every input: export the model with a dynamic batch, or give "
            f"whole runs: {_RUNS}.",
            where=str(path),
        )
    return next(iter(sizes.values()), None)


def _check_input(array: np.ndarray, value: ir.Value, path: Path) -> np.ndarray:
    expected = _describe(value)
    if value.shape is not None:
        fits = array.ndim == len(value.shape) and all(
            not isinstance(size, int) or size == found
            for size, found in zip(value.shape.dims[1:], array.shape[1:], strict=True)
        )
        if not fits:
            raise SamplesError(
                f"input {value.name!r} has shape {list(array.shape)}.",
                remedy=f"The graph expects {expected}; the first axis counts samples.",
                where=str(path),
            )
    elif array.ndim == 0:
        raise SamplesError(
            f"input {value.name!r} is a single number.",
            remedy="The first axis must count samples.",
            where=str(path),
        )
    return _convert(array, value, expected, path)


def _convert(array: np.ndarray, value: ir.Value, expected: str, path: Path) -> np.ndarray:
    """Convert between widths of floats or of integers if no value is lost; refuse everything else."""
    assert value.dtype is not None  # the checker demands typed graph inputs
    floats = value.dtype.is_floating_point() and array.dtype.kind == "f"
    integers = value.dtype.is_integer() and array.dtype.kind in "iu"
    wanted = np.dtype(value.dtype.numpy())
    if not (floats or integers or array.dtype == wanted):
        raise SamplesError(
            f"input {value.name!r} has type {array.dtype}.",
            remedy=f"The graph expects {expected}; convert and scale the samples as the model was trained.",
            where=str(path),
        )
    if floats and not np.isfinite(array).all():
        places = np.argwhere(~np.isfinite(np.atleast_1d(array)))
        samples = list(dict.fromkeys(places[:, 0].tolist()))
        raise SamplesError(
            f"input {value.name!r} holds NaN or infinity in {len(places)} of {array.size} values, in sample"
            f"{'s' if len(samples) > 1 else ''} {name_some(samples, 5)} (counted from 0).",
            remedy="Remove or repair these samples.",
            where=str(path),
        )
    # A float64 beyond float32 becomes infinity, an int64 beyond int32 wraps; both are caught below.
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array.astype(wanted, copy=False))
    if not (np.isfinite(converted).all() if floats else np.array_equal(converted, array)):
        raise SamplesError(
            f"input {value.name!r} holds values that {wanted} cannot.",
            remedy=f"The graph expects {expected}.",
            where=str(path),
        )
    if floats and converted.size and float(converted.max()) > LARGEST:
        sample = int(np.argwhere(converted == converted.max())[0][0])
        raise SamplesError(
            f"input {value.name!r} holds values up to {float(converted.max()):.3g} (sample {sample}), "
            f"and float32 cannot square what is above {LARGEST:.2g}.",
            remedy="Repair this sample, or scale the samples as the model was trained.",
            where=str(path),
        )
    return converted


def _check_labels(labels: np.ndarray, count: int, model: ir.Model, path: Path) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:  # a column, as some data sets store them
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise SamplesError(
            f"labels have type {labels.dtype} and shape {list(labels.shape)}.",
            remedy=f"Give one integer class number a sample{_how(labels)}.",
            where=str(path),
        )
    if len(labels) != count:
        raise SamplesError(
            f"there are {len(labels)} labels for {count} samples.",
            remedy="Give one label a sample.",
            where=str(path),
        )
    classes = _most_classes(model)
    if classes == 1:
        raise SamplesError(
            "there are labels, but no output holds one number a class: the widest holds one number a sample.",
            remedy="Leave the labels out; how close the outputs come is measured without them.",
            where=str(path),
        )
    if int(labels.min()) < 0 or (classes is not None and int(labels.max()) >= classes):
        limit = "" if classes is None else f" to {classes - 1}"
        raise SamplesError(
            f"labels run from {labels.min()} to {labels.max()}.",
            remedy=f"Class numbers must lie from 0{limit}.",
            where=str(path),
        )
    return labels.astype(np.int64)


def _most_classes(model: ir.Model) -> int | None:
    """Columns of the widest output that holds a row for each sample; None where the graph leaves one open."""
    shapes = [value.shape for value in model.graph.outputs]
    rows = [None if shape is None else shape[-1] for shape in shapes if shape is None or len(shape) == 2]
    sizes = [size for size in rows if isinstance(size, int)]
    return max(sizes) if sizes and len(sizes) == len(rows) else None


def _how(labels: np.ndarray) -> str:
    """Say how to make class numbers of what labels are often stored as."""
    if labels.dtype.kind not in "iufb" or not labels.size:
        return ", or leave the labels out"
    if labels.ndim == 2 and bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
        return ": these are one-hot, so labels.argmax(axis=1)"
    if labels.ndim == 1 and bool((labels == np.floor(labels)).all()):
        return ": labels.astype(numpy.int64)"
    return ", or leave the labels out: only classes of whole samples are counted"


def _describe(value: ir.Value) -> str:
    kind = "values" if value.dtype is None else np.dtype(value.dtype.numpy()).name
    sizes = [str(size) for size in value.shape.dims] if value.shape is not None else ["..."]
    return f"{kind} of shape [{', '.join(sizes)}]"
