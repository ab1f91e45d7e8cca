"""Sessions of onnxruntime with its default options, and samples sent through them batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from quant_core.errors import ModelError, SamplesError
from quant_core.processors.granted import available_processors
from quant_core.verification.float4 import fold_float4, has_float4

Arrays = Mapping[str, NDArray[Any]]
Batch = tuple[slice, dict[str, NDArray[Any]]]
Model = Path | ort.InferenceSession
"""A file, or a session that was opened on one."""

_BATCH_BYTES = 8 * 2**20
_LARGEST_BATCH = 64


def open_session(
    path: Path,
    *,
    threads: int | None = None,
    options: ort.SessionOptions | None = None,
    literal: bool = False,
) -> ort.InferenceSession:
    """Load a model file on onnxruntime's CPU provider.

    Args:
        path: The ONNX file; external data is found beside it.
        threads: Threads within an operator; default `available_processors()`.
        options: Session options to start from; default onnxruntime's own.
        literal: Whether to run every node as it is written, without any of onnxruntime's rewrites.

    Returns:
        The session.

    Raises:
        ModelError: If onnxruntime cannot load the file.
    """
    options = options or ort.SessionOptions()
    options.intra_op_num_threads = threads or available_processors()
    if literal:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # warnings about the graph are not for users of the engine
    try:
        return _load(path, options)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(
            f"onnxruntime {ort.__version__} cannot load the model: {_reason(error)}.",
            remedy="Check that the file is whole and that its opset is not newer than onnxruntime knows.",
            where=path.name,
        ) from error


def _load(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's exceptions share no base class
        if not has_float4(path):
            raise
        folded = fold_float4(onnx.load(path)).SerializeToString()
        return ort.InferenceSession(folded, options, providers=["CPUExecutionProvider"])


def fixed_batch(session: ort.InferenceSession) -> int | None:
    """Tell the batch size the graph prescribes.

    Args:
        session: An open session.

    Returns:
        The first dimension of the inputs where it is a number, else None.

    Raises:
        ModelError: If two inputs prescribe different batch sizes.
    """
    sizes = {i.name: i.shape[0] for i in session.get_inputs() if i.shape and isinstance(i.shape[0], int)}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ModelError(
            f"The inputs do not share one batch axis: {listed}.",
            remedy="Export the model with the sample axis first in every input.",
        )
    return next(iter(sizes.values()), None)


def choose_batch(session: ort.InferenceSession, inputs: Arrays) -> int:
    """Choose a batch size: the graph's own, else as many samples as fit 8 MiB of input, 64 at most.

    Args:
        session: An open session.
        inputs: Graph input name -> array, samples along the first axis.

    Returns:
        Samples per batch.
    """
    prescribed = fixed_batch(session)
    if prescribed is not None:
        return prescribed
    sample_bytes = sum(array.nbytes // max(len(array), 1) for array in inputs.values())
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES // max(sample_bytes, 1)))


def run_batches(session: ort.InferenceSession, inputs: Arrays, batch: int | None = None) -> Iterator[Batch]:
    """Run samples through a session batch by batch.

    A graph with a fixed batch gets its last batch filled up with the last sample; the answers to the filling are
    cut off again from every output whose first axis is the batch.

    Args:
        session: An open session.
        inputs: Graph input name -> array, samples along the first axis.
        batch: Samples per batch; default `choose_batch`. Ignored where the graph prescribes one.

    Yields:
        The samples of the batch as a slice, and output name -> array.

    Raises:
        SamplesError: If inputs are missing or empty, differ in length, or onnxruntime refuses them.
        ModelError: If onnxruntime fails while it runs the graph.
    """
    count = _check_names(session, inputs)
    prescribed = fixed_batch(session)
    size = prescribed or batch or choose_batch(session, inputs)
    names = [output.name for output in session.get_outputs()]
    wanted = [i.name for i in session.get_inputs()]
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        real = part.stop - part.start
        feeds = {name: np.ascontiguousarray(inputs[name][part]) for name in wanted}
        fill = size - real if prescribed else 0
        if fill:
            feeds = {name: np.concatenate([a, np.repeat(a[-1:], fill, axis=0)]) for name, a in feeds.items()}
        values = run(session, feeds)
        if fill:
            values = [v[:real] if v.ndim and len(v) == size else v for v in values]
        yield part, dict(zip(names, values, strict=True))


def run(session: ort.InferenceSession, feeds: Arrays) -> list[NDArray[Any]]:
    """Run one batch.

    Args:
        session: An open session.
        feeds: Graph input name -> array.

    Returns:
        The graph outputs in order.

    Raises:
        SamplesError: If onnxruntime refuses names, shapes or types.
        ModelError: If it fails while it runs the graph.
    """
    try:
        values: list[NDArray[Any]] = session.run(None, dict(feeds))
    except Exception as error:  # onnxruntime's exceptions share no base class
        if type(error).__name__ in {"InvalidArgument", "ValueError"}:
            raise SamplesError(
                f"onnxruntime refuses the samples: {_reason(error)}.",
                remedy="Give each graph input an array of its own shape and type, samples along the first axis.",
            ) from error
        raise ModelError(
            f"onnxruntime fails while it runs the model: {_reason(error)}.",
            remedy="Check that the model runs in onnxruntime on these samples.",
        ) from error
    return values


def _check_names(session: ort.InferenceSession, inputs: Arrays) -> int:
    missing = [i.name for i in session.get_inputs() if i.name not in inputs]
    if missing:
        raise SamplesError(
            f"The samples lack the graph input(s) {', '.join(missing)}.",
            remedy="Save one array per graph input under its name.",
            where=missing[0],
        )
    lengths = {i.name: len(inputs[i.name]) for i in session.get_inputs()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise SamplesError(
            f"The inputs differ in their number of samples, or hold none: {listed}.",
            remedy="Give every input the same number of samples, at least one.",
        )
    return next(iter(lengths.values()))


def _reason(error: Exception) -> str:
    # "[ONNXRuntimeError] : 1 : FAIL : text" -> "text"
    return str(error).rsplit(" : ", maxsplit=1)[-1].strip().rstrip(".")
